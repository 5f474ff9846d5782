"""What is said on one connection: the handshake, the stdlib's opening request, then calls and frames."""

from __future__ import annotations

import pickle
import time
from typing import Any, Protocol

import structlog

from service import wire_handshake as handshake
from service.broker.host import QueueHost
from service.domain import replies as r
from service.errors import BadRequest
from service.server.connection import Connection, PeerGone, Stage
from service.server.keys import KeyRing
from service.server.pickle_scan import loads_plain
from service.server.plain import EXPOSED, PlainFace, reply_bytes
from service.server.roles import Role, call_right, may_call, may_command, right_of
from service.wire import decode_request, encode_response, request_frame, with_header

#: What a client may ask of the server itself, on a fresh connection.
SERVER_METHODS = ("dummy", "create", "incref", "decref", "get_methods", "accept_connection")


class Line(Protocol):
    """What a dialogue needs of the loop that carries it."""

    def send(self, connection: Connection, message: bytes) -> None:
        """Send a whole message."""

    def opened(self, connection: Connection) -> None:
        """Note that the peer has proved itself."""


class Dialogue:
    """Turns messages into calls of the queue, and replies into messages."""

    def __init__(self, host: QueueHost, keys: KeyRing, line: Line, *, strict: bool = False) -> None:
        """Serve the queue of *host* to who knows one of *keys*, over *line*; *strict*: by SHA-256 only."""
        self._host = host
        #: Who is let in; may be replaced.
        self.keys = keys
        self._strict = strict
        self._line = line
        self._plain = PlainFace(host)
        self._log = structlog.get_logger("svc.manager")

    def handle(self, connection: Connection, message: memoryview) -> None:
        """Serve one message, as the connection's stage asks.

        Raises:
            PeerGone: the peer broke the rules of the handshake.
        """
        if connection.stage is Stage.SERVING:
            frame = request_frame(message)
            if frame is not None:
                self._handle_frame(connection, frame)
            else:
                self._handle_call(connection, message)
        elif connection.stage is Stage.OPEN:
            self._handle_opening(connection, message)
        else:
            self._handle_handshake(connection, bytes(message))

    def _handle_handshake(self, connection: Connection, message: bytes) -> None:
        if connection.stage is Stage.CHALLENGED:
            self._handle_response(connection, message)
        elif connection.stage is Stage.WELCOMED:
            key = connection.key
            response = handshake.answer(key.secret, message) if key else None
            if response is None:
                raise PeerGone("no challenge where one was due")
            connection.stage = Stage.ANSWERED
            self._line.send(connection, with_header(response))
        else:
            if message != handshake.WELCOME:
                raise PeerGone("the peer did not accept our answer")
            connection.stage = Stage.OPEN
            self._line.opened(connection)

    def _handle_response(self, connection: Connection, message: bytes) -> None:
        if self._strict and not handshake.is_sha256(message):
            self._refuse_stranger(connection, "older than SHA-256, as CPython 3.11 is; --strict-auth is set")
            return
        connection.key = self.keys.who_answered(connection.challenge, message)
        if connection.key is None:
            self._refuse_stranger(connection, "wrong authkey")
            return
        connection.stage = Stage.WELCOMED
        self._line.send(connection, with_header(handshake.WELCOME))

    def _refuse_stranger(self, connection: Connection, reason: str) -> None:
        """Say no and nothing else."""
        self._host.observer.authentication_failed()
        self._log.warning("connection_refused", peer=connection.peer, reason=reason)
        connection.closing = True
        self._line.send(connection, with_header(handshake.FAILURE))

    def _handle_opening(self, connection: Connection, message: memoryview) -> None:
        """Serve a request to the server itself: the stdlib makes one on each fresh connection."""
        try:
            _, method, args, kwds = _four(loads_plain(message))
            value = self._server_call(str(method), args, kwds)
        except (BadRequest, LookupError, TypeError, ValueError) as error:
            self._line.send(connection, with_header(_traceback(str(error))))
            return
        if method == "accept_connection":
            connection.stage = Stage.SERVING
        self._line.send(connection, with_header(reply_bytes(value)))

    def _server_call(self, method: str, args: tuple[Any, ...], kwds: dict[str, Any]) -> object:
        if method not in SERVER_METHODS:
            raise BadRequest(f"{method!r} is not served here")
        if method == "create":
            typeid = args[0] if args else kwds.get("typeid")
            if typeid not in EXPOSED:
                raise BadRequest(f"there is no shared object {typeid!r}; there are {', '.join(EXPOSED)}")
            return (typeid, EXPOSED[typeid])
        return None

    def _handle_frame(self, connection: Connection, frame: memoryview) -> None:
        started = time.perf_counter()
        try:
            request, commands = decode_request(frame)
        except BadRequest as error:
            self._respond(connection, 0, [r.Refused(error.code, str(error))])
            return

        for command in commands:
            if not may_command(connection.role or Role.READ, command):
                refusal = self._refuse_call(connection, right_of(command))
                # All or nothing: what travels with it was meant to happen together with it.
                self._respond(connection, request, [r.Refused("forbidden", refusal)] * len(commands))
                self._count(right_of(command), "denied", started)
                return

        def deliver(replies: list[r.Reply]) -> None:
            connection.outstanding -= 1
            self._respond(connection, request, replies)

        connection.outstanding += 1
        self._host.call(commands, connection.member, deliver)
        if commands:
            method = commands[-1].__struct_config__.tag
            self._count(str(method), "ok", started)

    def _refuse_call(self, connection: Connection, what: str) -> str:
        """Log that a key is not for *what*; return the sentence that says so."""
        role = str(connection.role)
        self._log.warning("call_refused", peer=connection.peer, role=role, method=what)
        return (
            f"a key for {role!r} may not {what!r}; use a key whose role may (docs/security.md has the table)"
        )

    def _count(self, method: str, result: str, started: float) -> None:
        self._host.observer.called(method, result, time.perf_counter() - started)

    def _respond(self, connection: Connection, request: int, replies: list[r.Reply]) -> None:
        if not connection.closed:
            self._line.send(connection, encode_response(request, replies))

    def _handle_call(self, connection: Connection, message: memoryview) -> None:
        """Serve a plain client's call of a shared object."""
        started = time.perf_counter()

        def done(value: object) -> None:
            connection.outstanding -= 1
            if not connection.closed:
                self._line.send(connection, with_header(_answer(value)))

        connection.outstanding += 1
        try:
            ident, method, args, kwds = _four(loads_plain(message))
        except BadRequest as error:
            done(ValueError(str(error)))
            self._count("plain", "error", started)
            return
        if (ident, method) == ("jobs", "call"):
            done(ValueError("jobs.call takes one frame of service.wire as bytes"))
            return
        right = call_right(str(ident), str(method), args, kwds)
        if method in EXPOSED.get(str(ident), ()) and not may_call(connection.role or Role.READ, right):
            done(PermissionError(self._refuse_call(connection, ".".join(right))))
            self._count("plain", "denied", started)
            return
        self._plain.call(connection.member, str(ident), str(method), args, kwds, done)
        self._count("plain", "ok", started)


def _four(request: object) -> tuple[Any, Any, tuple[Any, ...], dict[str, Any]]:
    """Return a stdlib request as (ident, method, args, kwds).

    Raises:
        BadRequest: it is something else.
    """
    match request:
        case (ident, method, tuple() as args, dict() as kwds):
            return ident, method, args, kwds
    raise BadRequest("a request is (ident, method, args, kwds)")


def _answer(value: object) -> bytes:
    """Return the stdlib's reply for *value*, or the error that it cannot be sent: too deep, for instance."""
    try:
        return reply_bytes(value)
    except Exception as error:  # noqa: BLE001  # all is committed by now: to fall over it would help nobody
        return reply_bytes(ValueError(f"the answer cannot be pickled: {type(error).__name__}"))


def _traceback(message: str) -> bytes:
    """Return the stdlib's reply that raises RemoteError with *message* at the client."""
    return pickle.dumps(("#TRACEBACK", message), protocol=4)
