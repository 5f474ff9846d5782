"""The opening of a connection: the handshake, and the first requests of the stdlib, to the server itself."""

from __future__ import annotations

import contextlib
import pickle
from typing import Any

from svc import wire_handshake as handshake
from svc.domain import commands as c
from svc.domain import replies as r
from svc.errors import BadRequest, ManagerUnreachable
from svc.server.connection import Connection, PeerGone, Stage
from svc.server.connections import Connections
from svc.server.keys import KeyRing
from svc.server.pickle_scan import loads_plain
from svc.server.plain import EXPOSED
from svc.server.plain_values import reply_bytes, shown
from svc.server.roles import free_commands, reads_all
from svc.wire import decode_request, encode_response, request_frame, with_header

#: The methods of the server itself that a client may call, on a fresh connection.
SERVER_METHODS = ("dummy", "create", "incref", "decref", "get_methods", "accept_connection")


class Opening:
    """Serves the messages of connections that have not yet chosen a shared object."""

    def __init__(self, keys: KeyRing, connections: Connections, *, strict: bool = False) -> None:
        """Let in peers that know one of *keys*; if *strict* is set, only those that prove it with SHA-256."""
        #: The accepted keys; may be replaced.
        self.keys = keys
        self._connections = connections
        self._strict = strict

    def handle(self, connection: Connection, message: memoryview) -> None:
        """Serve one message according to the connection's stage.

        Raises:
            PeerGone: the peer broke the rules of the handshake.
        """
        match connection.stage:
            case Stage.CHALLENGED:
                self._handle_response(connection, bytes(message))
            case Stage.WELCOMED:
                self._answer_challenge(connection, bytes(message))
            case Stage.ANSWERED:
                if message != handshake.WELCOME:
                    raise PeerGone("the peer did not accept our answer")
                connection.refusal = self._connections.opened(connection)
                connection.stage = Stage.REFUSED if connection.refusal else Stage.OPEN
            case Stage.REFUSED:
                self._refuse_place(connection, message)
            case _:
                self._handle_request(connection, message)

    def _handle_response(self, connection: Connection, message: bytes) -> None:
        if message == handshake.LEADER_QUESTION:
            raise PeerGone("it asked who leads")  # it has taken us for a standby
        if self._strict and not handshake.is_sha256(message):
            self._refuse_stranger(connection, "older than SHA-256, as CPython 3.11 is; --strict-auth is set")
            return
        key = connection.key = self.keys.who_answered(connection.challenge, message)
        if key is None:
            self._refuse_stranger(connection, "wrong authkey")
            return
        connection.free_commands = free_commands(key.role)
        connection.member.reads_all = reads_all(key.role)
        connection.stage = Stage.WELCOMED
        self._connections.proved()
        self._connections.send(connection, with_header(handshake.WELCOME))

    def _answer_challenge(self, connection: Connection, message: bytes) -> None:
        response = handshake.answer(connection.key.secret, message) if connection.key else None
        if response is None:
            raise PeerGone("no challenge where one was due")
        connection.stage = Stage.ANSWERED
        self._connections.send(connection, with_header(response))

    def _refuse_stranger(self, connection: Connection, reason: str) -> None:
        """Refuse a peer that has not proved a key, without telling it the reason."""
        self._connections.peer_log.refused_stranger(connection.peer, reason)
        connection.closing = True
        self._connections.send(connection, with_header(handshake.FAILURE))

    def _refuse_place(self, connection: Connection, message: memoryview) -> None:
        """Tell a peer that has proved a key why it gets no place; our clients get it in reply to hello."""
        why = f"the manager has no place for this connection: {connection.refusal}; try again later"
        frame = request_frame(message)
        if frame is None:
            self._connections.send(connection, with_header(reply_bytes(ConnectionRefusedError(why))))
            return
        connection.closing = True
        request, commands = 0, list[c.Command]()
        with contextlib.suppress(BadRequest):
            request, commands = decode_request(frame)
        refusals = [r.Refused(ManagerUnreachable.code, why)] * len(commands)
        self._connections.send(connection, encode_response(request, refusals))

    def _handle_request(self, connection: Connection, message: memoryview) -> None:
        """Serve a request to the server itself; the stdlib sends one on each fresh connection."""
        try:
            _, method, args, kwds = parts_of(loads_plain(message))
            value = _server_call(method, args, kwds)
        except (BadRequest, LookupError, TypeError, ValueError) as error:
            # The stdlib raises RemoteError with the text at the client.
            answer = pickle.dumps(("#TRACEBACK", str(error)), protocol=4)
            self._connections.send(connection, with_header(answer))
            return
        if method == "accept_connection":
            connection.stage = Stage.SERVING
        self._connections.send(connection, with_header(reply_bytes(value)))


def _server_call(method: object, args: tuple[Any, ...], kwds: dict[str, Any]) -> object:
    if not isinstance(method, str) or method not in SERVER_METHODS:
        raise BadRequest(f"{shown(method)} is not served here")
    if method == "create":
        typeid = args[0] if args else kwds.get("typeid")
        if not isinstance(typeid, str) or typeid not in EXPOSED:
            raise BadRequest(f"there is no shared object {shown(typeid)}; there are {', '.join(EXPOSED)}")
        return (typeid, EXPOSED[typeid])
    return None


def parts_of(request: object) -> tuple[Any, Any, tuple[Any, ...], dict[str, Any]]:
    """Return a stdlib request as (ident, method, args, kwds).

    Raises:
        BadRequest: *request* has another form.
    """
    match request:
        case (ident, method, tuple() as args, dict() as kwds):
            return ident, method, args, kwds
    raise BadRequest("a request is (ident, method, args, kwds)")
