"""The protocol of one connection: the handshake, the stdlib's opening request, then calls and frames."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

import structlog

from svc import wire_handshake as handshake
from svc.broker.host import QueueHost
from svc.broker.request import Request
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.roles import Role
from svc.errors import BadRequest, ManagerUnreachable
from svc.server.connection import Connection, PeerGone, Stage
from svc.server.keys import KeyRing
from svc.server.pickle_machine import OPERATIONS_MAX
from svc.server.pickle_scan import PlainReader, loads_plain
from svc.server.plain import EXPOSED, PlainFace
from svc.server.plain_values import reply_bytes
from svc.server.roles import call_right, may_call, may_command, reads_all
from svc.server.telling import NOTED_SECONDS, Telling
from svc.server.turns import Turns
from svc.wire import decode_request, encode_response, request_frame, with_header

#: The methods of the server itself that a client may call, on a fresh connection.
SERVER_METHODS = ("dummy", "create", "incref", "decref", "get_methods", "accept_connection")

#: How many decoded calls of one connection are kept.
_KNOWN_CALLS_MAX = 8
#: The most bytes of the message of such a call.
_KNOWN_BYTES_MAX = 128
#: Calls of more bytes are scanned in parts; shorter ones take a few milliseconds.
_LONG_BYTES = 8 * 1024
#: Bytes of a frame from which to decode it may take so long that it is carried out in the next turn.
LONG_FRAME_BYTES = 64 * 1024
_REPEATED = frozenset(("get", "get_nowait", "task_done", "join", "qsize", "empty", "full"))
_CONSTANT = frozenset((type(None), bool, int, float, str, bytes))
_SERVING = Stage.SERVING
#: The answer None, the most frequent one.
_NOTHING = with_header(reply_bytes(None))
#: The most bytes of a pickle in addition to its content: no opcode has more than nine.
CODING_BYTES_MAX = 9 * OPERATIONS_MAX
#: A method of `PlainFace`, and its arguments.
_Call = tuple[Callable[..., None], tuple[Any, ...], dict[str, Any]]


class Line(Protocol):
    """The methods of the loop's connections that the protocol needs."""

    def send(self, connection: Connection, message: bytes | bytearray) -> None:
        """Send a complete message."""

    def opened(self, connection: Connection) -> str | None:
        """Note that the peer has proved a key; return why it gets no place, if it gets none."""


class ConnectionProtocol:
    """Turns messages into calls of the queue, and replies into messages."""

    def __init__(
        self,
        host: QueueHost,
        keys: KeyRing,
        line: Line,
        *,
        strict: bool = False,
        turns: Turns | None = None,
        telling: Telling | None = None,
    ) -> None:
        """Serve the queue of *host* to peers that know one of *keys*, over *line*.

        Args:
            host: the queue.
            keys: the accepted keys.
            line: sends the messages.
            strict: accept only challenges answered with SHA-256.
            telling: counts and logs refusals and long work.
            turns: moves long work to later turns; without it each request is served at once.
        """
        self._host = host
        self._turns = turns or Turns()
        self._telling = telling or Telling(host.observer)
        #: The accepted keys; may be replaced.
        self.keys = keys
        self._strict = strict
        self._line = line
        self._plain = PlainFace(host)
        self._log = structlog.get_logger("svc.manager")

    def begin_anew(self) -> None:
        """Start a new numbering of plain clients' puts, under the journal's new incarnation."""
        self._plain = PlainFace(self._host)

    def handle(self, connection: Connection, message: memoryview) -> None:
        """Serve one message according to the connection's stage.

        Raises:
            PeerGone: the peer broke the rules of the handshake.
        """
        if connection.stage is _SERVING:
            known = connection.calls.get(bytes(message)) if len(message) <= _KNOWN_BYTES_MAX else None
            frame = request_frame(message) if known is None else None
            if frame is not None:
                self._handle_frame(connection, frame)
            else:
                self._handle_call(connection, message, known)
        elif connection.stage is Stage.OPEN:
            self._handle_opening(connection, message)
        elif connection.stage is Stage.REFUSED:
            self._refuse_guest(connection, message)
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
            connection.refusal = self._line.opened(connection) or ""
            connection.stage = Stage.REFUSED if connection.refusal else Stage.OPEN

    def _handle_response(self, connection: Connection, message: bytes) -> None:
        if self._strict and not handshake.is_sha256(message):
            self._refuse_stranger(connection, "older than SHA-256, as CPython 3.11 is; --strict-auth is set")
            return
        connection.key = self.keys.who_answered(connection.challenge, message)
        if connection.key is None:
            self._refuse_stranger(connection, "wrong authkey")
            return
        connection.member.reads_all = reads_all(connection.key.role)
        connection.stage = Stage.WELCOMED
        self._line.send(connection, with_header(handshake.WELCOME))

    def _refuse_stranger(self, connection: Connection, reason: str) -> None:
        """Refuse a peer that has not proved a key, without telling it the reason."""
        self._host.observer.counted("svc_manager_auth_failures_total")
        self._log.warning("connection_refused", peer=connection.peer, reason=reason)
        connection.closing = True
        self._line.send(connection, with_header(handshake.FAILURE))

    def _refuse_guest(self, connection: Connection, message: memoryview) -> None:
        """Tell a peer that has proved a key why it gets no place; our clients get it in reply to hello."""
        why = f"the manager has no place for this connection: {connection.refusal}; try again later"
        frame = request_frame(message)
        if frame is None:
            self._line.send(connection, with_header(reply_bytes(ConnectionRefusedError(why))))
            return
        connection.closing = True
        request, commands = _request_or_none(frame)
        self._respond(connection, request, [r.Refused(ManagerUnreachable.code, why)] * len(commands))

    def _handle_opening(self, connection: Connection, message: memoryview) -> None:
        """Serve a request to the server itself; the stdlib sends one on each fresh connection."""
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
            self._telling.refused_call(connection, "malformed", "frame")
            self._respond(connection, 0, [r.Refused(error.code, str(error))])
            return

        for command in commands:
            if not may_command(connection.role or Role.READ, command):
                refusal = self._refuse_call(connection, command.right())
                # All or nothing: the commands of one request are meant to be applied together.
                self._respond(connection, request, [r.Refused("forbidden", refusal)] * len(commands))
                self._count(connection, command.right(), "denied", started)
                return

        def deliver(replies: list[r.Reply]) -> None:
            connection.member.outstanding -= 1
            self._respond(connection, request, replies)

        connection.member.outstanding += 1
        work = Request(commands, connection.member, deliver)
        in_time = len(frame) < LONG_FRAME_BYTES or not self._turns.over
        if in_time and self._host.proceed(work, self._turns.until):
            self._count_frame(connection, commands, started)
        else:
            self._turns.defer(connection, partial(self._go_on, connection, work))

    def _go_on(self, connection: Connection, work: Request, until: float) -> bool:
        """Continue a frame that was too long for one turn; return whether it is done."""
        started = time.perf_counter()
        done = self._host.proceed(work, until)
        self._count_frame(connection, work.commands, started)
        return done

    def _count_frame(self, connection: Connection, commands: Sequence[c.Command], started: float) -> None:
        if commands:
            self._count(connection, c.verb_of(type(commands[-1])), "ok", started)

    def _refuse_call(self, connection: Connection, what: str) -> str:
        """Log that the connection's key does not allow *what*; return the error message."""
        role = str(connection.role)
        self._telling.refused_call(connection, "forbidden", what)
        return (
            f"a key for {role!r} may not {what!r}; use a key whose role may (docs/security.md has the tables)"
        )

    def _count(self, connection: Connection, method: str, result: str, started: float) -> None:
        seconds = time.perf_counter() - started
        self._host.observer.called(method, result, seconds)
        if seconds > NOTED_SECONDS:
            self._telling.worked(method, str(connection.role), seconds)

    def _respond(self, connection: Connection, request: int, replies: list[r.Reply]) -> None:
        if not connection.closed:
            self._line.send(connection, _response(request, replies))

    def _handle_call(self, connection: Connection, message: memoryview, known: _Call | None) -> None:
        """Serve a plain client's call of a shared object; *known* is the same call decoded before, if any."""
        started = time.perf_counter()
        connection.member.outstanding += 1
        if known is None and len(message) > _LONG_BYTES:
            longest = self._host.state.limits.max_job_bytes + CODING_BYTES_MAX
            if len(message) > longest:
                error = BadRequest(
                    f"a call of {len(message)} bytes is over the limit of {longest}; send less at once"
                )
                self._refuse(connection, error, started, "too_large")
                return
            reader = PlainReader(message)
            if not self._read_on(connection, reader, self._turns.until):
                self._turns.defer(connection, partial(self._read_on, connection, reader))
            return
        if known is None:
            known = self._admitted_or_refused(connection, started, message)
        if known is not None:
            self._carry_out(connection, known, started)

    def _read_on(self, connection: Connection, reader: PlainReader, until: float) -> bool:
        """Continue a long call of a plain client; return whether it is done."""
        started = time.perf_counter()
        try:
            if not reader.proceed(until):
                self._count_part(connection, started)
                return False
            request = reader.read()
        except BadRequest as error:
            self._refuse(connection, error, started)
            return True
        known = self._admitted_or_refused(connection, started, b"", request)
        if known is not None:
            self._carry_out(connection, known, started)
        return True

    def _carry_out(self, connection: Connection, known: _Call, started: float) -> None:
        method, args, kwds = known
        self._plain.carry_out(method, connection.member, args, kwds, partial(self._answer, connection))
        self._count(connection, "plain", "ok", started)

    def _count_part(self, connection: Connection, started: float) -> None:
        self._telling.worked("plain", str(connection.role), time.perf_counter() - started)

    def _refuse(
        self, connection: Connection, refusal: Exception, started: float, kind: str = "not_plain"
    ) -> None:
        """Answer a plain client's call with the reason for its refusal."""
        if isinstance(refusal, BadRequest):
            self._telling.refused_call(connection, kind, "plain")
            refusal = ValueError(str(refusal))
        self._answer(connection, refusal)
        result = "denied" if isinstance(refusal, PermissionError) else "error"
        self._count(connection, "plain", result, started)

    def _admitted_or_refused(
        self,
        connection: Connection,
        started: float,
        message: bytes | memoryview,
        request: object = None,
    ) -> _Call | None:
        try:
            return self._admitted(connection, message, loads_plain(message) if request is None else request)
        except (ValueError, PermissionError, AttributeError, BadRequest) as refusal:
            self._refuse(connection, refusal, started)
            return None

    def _admitted(self, connection: Connection, message: bytes | memoryview, request: object) -> _Call:
        """Return the method of a call, and its arguments.

        Consumers repeat the same few calls. The decoded calls are kept by their bytes, so that each is
        scanned, unpickled and checked against the role of the connection's key only once. That role never
        changes.

        Raises:
            BadRequest: the message is no call.
            ValueError: it is a malformed call of one of our own clients.
            PermissionError: the role of the peer's key does not allow it.
            AttributeError: there is no such method.
        """
        ident, name, args, kwds = _four(request)
        if (ident, name) == ("jobs", "call"):
            raise ValueError("jobs.call takes one frame of svc.wire as bytes")
        typeid, name = str(ident), str(name)
        method = self._plain.method(typeid, name)
        right = call_right(typeid, name, args, kwds)
        if not may_call(connection.role or Role.READ, right):
            raise PermissionError(self._refuse_call(connection, ".".join(right)))
        if 0 < len(message) <= _KNOWN_BYTES_MAX and name in _REPEATED and _is_constant(args, kwds):
            if len(connection.calls) >= _KNOWN_CALLS_MAX:
                connection.calls.clear()
            connection.calls[bytes(message)] = method, args, kwds
        return method, args, kwds

    def _answer(self, connection: Connection, value: object) -> None:
        connection.member.outstanding -= 1
        if not connection.closed:
            self._line.send(connection, _NOTHING if value is None else with_header(_reply(value)))


def _request_or_none(frame: memoryview) -> tuple[int, Sequence[c.Command]]:
    try:
        return decode_request(frame)
    except BadRequest:
        return 0, ()


def _is_constant(args: tuple[Any, ...], kwds: dict[str, Any]) -> bool:
    """Return whether all arguments are immutable, so that the decoded call may be used again."""
    return all(type(each) in _CONSTANT for each in (*args, *kwds.values()))


def _four(request: object) -> tuple[Any, Any, tuple[Any, ...], dict[str, Any]]:
    """Return a stdlib request as (ident, method, args, kwds).

    Raises:
        BadRequest: *request* has another form.
    """
    match request:
        case (ident, method, tuple() as args, dict() as kwds):
            return ident, method, args, kwds
    raise BadRequest("a request is (ident, method, args, kwds)")


def _response(request: int, replies: list[r.Reply]) -> bytearray:
    """Return the answer to a frame; if it cannot be encoded, a refusal for each command."""
    try:
        return encode_response(request, replies)
    except Exception as error:  # noqa: BLE001  # the changes are committed: the manager has to go on
        refusal = r.Refused(BadRequest.code, f"the answer cannot be encoded: {type(error).__name__}")
        return encode_response(request, [refusal] * len(replies))


def _reply(value: object) -> bytes:
    """Return the stdlib's reply for *value*; if it cannot be pickled (it is too deep, say), an error."""
    try:
        return reply_bytes(value)
    except Exception as error:  # noqa: BLE001  # the changes are committed: the manager has to go on
        return reply_bytes(ValueError(f"the answer cannot be pickled: {type(error).__name__}"))


def _traceback(message: str) -> bytes:
    """Return the stdlib's reply that raises RemoteError with *message* at the client."""
    return pickle.dumps(("#TRACEBACK", message), protocol=4)
