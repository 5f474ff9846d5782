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
from service.server.pickle_scan import loads_plain
from service.server.plain import EXPOSED, PlainFace, reply_bytes
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

    def __init__(self, host: QueueHost, authkey: bytes, line: Line) -> None:
        """Serve the queue of *host* to who knows *authkey*, over *line*."""
        self._host = host
        self._authkey = authkey
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
            if not handshake.is_right(self._authkey, connection.challenge, message):
                self._refuse_stranger(connection)
                return
            connection.stage = Stage.WELCOMED
            self._line.send(connection, with_header(handshake.WELCOME))
        elif connection.stage is Stage.WELCOMED:
            response = handshake.answer(self._authkey, message)
            if response is None:
                raise PeerGone("no challenge where one was due")
            connection.stage = Stage.ANSWERED
            self._line.send(connection, with_header(response))
        else:
            if message != handshake.WELCOME:
                raise PeerGone("the peer did not accept our answer")
            connection.stage = Stage.OPEN
            self._line.opened(connection)

    def _refuse_stranger(self, connection: Connection) -> None:
        """Say no and nothing else."""
        self._host.observer.authentication_failed()
        self._log.warning("connection_refused", peer=connection.peer, reason="wrong authkey")
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

        def deliver(replies: list[r.Reply]) -> None:
            self._respond(connection, request, replies)

        self._host.call(commands, connection.member, deliver)
        if commands:
            method = commands[-1].__struct_config__.tag
            self._host.observer.called(str(method), "ok", time.perf_counter() - started)

    def _respond(self, connection: Connection, request: int, replies: list[r.Reply]) -> None:
        if not connection.closed:
            self._line.send(connection, encode_response(request, replies))

    def _handle_call(self, connection: Connection, message: memoryview) -> None:
        """Serve a plain client's call of a shared object."""
        started = time.perf_counter()

        def done(value: object) -> None:
            if not connection.closed:
                self._line.send(connection, with_header(reply_bytes(value)))

        try:
            ident, method, args, kwds = _four(loads_plain(message))
        except BadRequest as error:
            done(ValueError(str(error)))
            self._host.observer.called("plain", "error", time.perf_counter() - started)
            return
        if (ident, method) == ("jobs", "call"):
            done(ValueError("jobs.call takes one frame of service.wire as bytes"))
            return
        self._plain.call(connection.member, str(ident), str(method), args, kwds, done)
        self._host.observer.called("plain", "ok", time.perf_counter() - started)


def _four(request: object) -> tuple[Any, Any, tuple[Any, ...], dict[str, Any]]:
    """Return a stdlib request as (ident, method, args, kwds).

    Raises:
        BadRequest: it is something else.
    """
    match request:
        case (ident, method, tuple() as args, dict() as kwds):
            return ident, method, args, kwds
    raise BadRequest("a request is (ident, method, args, kwds)")


def _traceback(message: str) -> bytes:
    """Return the stdlib's reply that raises RemoteError with *message* at the client."""
    return pickle.dumps(("#TRACEBACK", message), protocol=4)
