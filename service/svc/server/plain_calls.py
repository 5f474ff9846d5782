"""The calls of plain clients: each is read, checked against the role of the key, and answered."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from svc.broker.host import QueueHost
from svc.domain.roles import Role
from svc.errors import BadRequest
from svc.server.connection import Connection
from svc.server.connections import Connections
from svc.server.loop import Turns
from svc.server.opening import parts_of
from svc.server.pickle_machine import OPERATIONS_MAX
from svc.server.pickle_scan import PlainReader, loads_plain
from svc.server.plain import SharedObjects
from svc.server.plain_values import reply_bytes
from svc.server.put_form import NO_PUT, item_of
from svc.server.roles import call_right, may_call
from svc.wire import with_header

#: How many decoded calls of one connection are kept.
_KNOWN_CALLS_MAX = 8
#: The most bytes of the message of such a call.
_KNOWN_BYTES_MAX = 128
#: Calls of more bytes are scanned in parts; shorter ones take a few milliseconds.
_LONG_BYTES = 8 * 1024
_REPEATED = frozenset(("get", "get_nowait", "task_done", "join", "qsize", "empty", "full"))
_NO_KEYWORDS: dict[str, Any] = {}
_CONSTANT = frozenset((type(None), bool, int, float, str, bytes))
#: The answer None, the most frequent one.
_NOTHING = with_header(reply_bytes(None))
#: The most bytes of a pickle in addition to its content: no opcode has more than nine.
CODING_BYTES_MAX = 9 * OPERATIONS_MAX
#: A method of `SharedObjects`, and its arguments.
_Call = tuple[Callable[..., None], tuple[Any, ...], dict[str, Any]]
#: Counts a call: the connection, the method, the result, and when it began (by `time.perf_counter`).
Count = Callable[[Connection, str, str, float], None]


class PlainCalls:
    """Serves the calls of plain clients to the shared objects."""

    def __init__(self, host: QueueHost, connections: Connections, turns: Turns, count: Count) -> None:
        """Serve the queue of *host* over *connections*; *turns* moves long calls to later turns."""
        self.objects = SharedObjects(host)
        self._host = host
        self._connections = connections
        self._turns = turns
        self._count = count

    def handle(self, connection: Connection, message: memoryview) -> None:
        """Serve one call of a shared object."""
        started = time.perf_counter()
        connection.member.outstanding += 1
        size = len(message)
        if size <= _LONG_BYTES:
            request = bytes(message)
            call = connection.calls.get(request) if size <= _KNOWN_BYTES_MAX else None
            if call is None and connection.put is not None:
                item = item_of(request)
                if item is not None and item is not NO_PUT:  # None is a pill, for which the role is checked
                    call = connection.put, (item,), _NO_KEYWORDS
            if call is not None:
                self._carry_out(connection, call, started)
            else:
                self._admit(connection, started, lambda: loads_plain(request), request)
        elif size <= (longest := self._host.limits.max_job_bytes + CODING_BYTES_MAX):
            reader = PlainReader(message)
            if not self._read_on(connection, reader, self._turns.until):
                self._turns.defer(connection, partial(self._read_on, connection, reader))
        else:
            why = f"a call of {size} bytes is over the limit of {longest}; send less at once"
            self._refuse(connection, BadRequest(why), started, "too_large")

    def _read_on(self, connection: Connection, reader: PlainReader, until: float) -> bool:
        """Continue a long call; return whether it is done."""
        started = time.perf_counter()
        try:
            if not reader.proceed(until):
                self._turns.note_part("plain", str(connection.role), time.perf_counter() - started)
                return False
        except BadRequest as error:
            self._refuse(connection, error, started)
        else:
            self._admit(connection, started, reader.read)
        return True

    def _admit(
        self,
        connection: Connection,
        started: float,
        read: Callable[[], object],
        message: bytes | memoryview = b"",
    ) -> None:
        """Carry out the call that *read* returns if it is one, and if the key's role allows it."""
        try:
            call = self._admitted(connection, message, read())
        except (ValueError, PermissionError, AttributeError, BadRequest) as refusal:
            self._refuse(connection, refusal, started)
        else:
            self._carry_out(connection, call, started)

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
        ident, name, args, kwds = parts_of(request)
        if (ident, name) == ("jobs", "call"):
            raise ValueError("jobs.call takes one frame of svc.wire as bytes")
        method = self.objects.method(ident, name)
        typeid = ident
        right = call_right(typeid, name, args, kwds)
        if not may_call(connection.role or Role.READ, right):
            raise PermissionError(self._connections.peer_log.forbidden(connection, ".".join(right)))
        if right == ("tasks", "put"):
            connection.put = method
        if 0 < len(message) <= _KNOWN_BYTES_MAX and name in _REPEATED and _is_constant(args, kwds):
            if len(connection.calls) >= _KNOWN_CALLS_MAX:
                connection.calls.clear()
            connection.calls[bytes(message)] = method, args, kwds
        return method, args, kwds

    def _carry_out(self, connection: Connection, call: _Call, started: float) -> None:
        method, args, kwds = call
        self.objects.carry_out(method, connection.member, args, kwds, partial(self._done, connection))
        self._count(connection, "plain", "ok", started)

    def _refuse(
        self, connection: Connection, refusal: Exception, started: float, kind: str = "not_plain"
    ) -> None:
        """Answer a call with the reason for its refusal."""
        if isinstance(refusal, BadRequest):
            self._connections.peer_log.refused_call(connection, kind, "plain")
            refusal = ValueError(str(refusal))
        self._answer(connection, refusal)
        result = "denied" if isinstance(refusal, PermissionError) else "error"
        self._count(connection, "plain", result, started)

    def _done(self, connection: Connection, value: object) -> None:
        """Answer a call that was carried out, or that makes no sense."""
        if isinstance(value, ValueError | TypeError):
            self._connections.peer_log.refused_call(connection, BadRequest.code, "plain")
        self._answer(connection, value)

    def _answer(self, connection: Connection, value: object) -> None:
        connection.member.outstanding -= 1
        self._connections.send(connection, _NOTHING if value is None else with_header(_reply(value)))


def _is_constant(args: tuple[Any, ...], kwds: dict[str, Any]) -> bool:
    """Return whether all arguments are immutable, so that the decoded call may be used again."""
    return all(type(each) in _CONSTANT for each in (*args, *kwds.values()))


def _reply(value: object) -> bytes:
    """Return the stdlib's reply for *value*; if it cannot be pickled (it is too deep, say), an error."""
    try:
        return reply_bytes(value)
    except Exception as error:  # noqa: BLE001  # the changes are committed: the manager has to go on
        return reply_bytes(ValueError(f"the answer cannot be pickled: {type(error).__name__}"))
