"""The protocol of a connection: its opening, then frames of svc's clients or calls of plain ones."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from functools import partial

from svc.broker.host import QueueHost
from svc.broker.requests import Request
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.roles import Role
from svc.errors import BadRequest
from svc.server.collector import looks_put_off
from svc.server.connection import Connection, Stage
from svc.server.connections import Connections
from svc.server.keys import KeyRing
from svc.server.loop import NOTED_SECONDS, Turns
from svc.server.opening import Opening
from svc.server.plain_calls import PlainCalls
from svc.server.roles import may_command
from svc.wire import decode_request, encode_response, request_frame

#: Bytes of a frame from which to decode it may take so long that it is carried out in the next turn: if that
#: took so many seconds, or if no time is left.
LONG_FRAME_BYTES = 64 * 1024
LONG_DECODE_SECONDS = 0.003
_SERVING = Stage.SERVING
_VERBS = {kind: c.verb_of(kind) for kind in c.COMMANDS}


class ConnectionProtocol:
    """Turns messages into calls of the queue, and replies into messages."""

    def __init__(
        self, host: QueueHost, keys: KeyRing, connections: Connections, turns: Turns, *, strict: bool = False
    ) -> None:
        """Serve the queue of *host* to peers that know one of *keys*, over *connections*.

        Args:
            host: the queue.
            keys: the accepted keys.
            connections: send the messages.
            turns: moves long work to later turns.
            strict: accept only challenges answered with SHA-256.
        """
        self._host = host
        self._connections = connections
        self._turns = turns
        self._opening = Opening(keys, connections, strict=strict)
        self.plain = PlainCalls(host, connections, turns, self._count)

    def begin_anew(self) -> None:
        """Give plain clients new shared objects, which know nothing of the state before a recovery."""
        self.plain = PlainCalls(self._host, self._connections, self._turns, self._count)

    def renew(self, keys: KeyRing) -> None:
        """Accept only *keys* from now on."""
        self._opening.keys = keys

    def handle(self, connection: Connection, message: memoryview) -> None:
        """Serve one message according to the connection's stage.

        Raises:
            PeerGone: the peer broke the rules of the handshake.
        """
        if connection.stage is not _SERVING:
            self._opening.handle(connection, message)
        elif (frame := request_frame(message)) is not None:
            self._handle_frame(connection, frame)
        else:
            self.plain.handle(connection, message)

    def _handle_frame(self, connection: Connection, frame: memoryview) -> None:
        started = time.perf_counter()
        member, request = connection.member, 0
        member.outstanding += 1
        long = len(frame) >= LONG_FRAME_BYTES
        try:
            request, commands = _decoded_at_once(frame) if long else decode_request(frame)
        except BadRequest as error:
            self._connections.peer_log.refused_call(connection, "malformed", "frame")
            self._respond(connection, request, [r.Refused(error.code, str(error))])
            return

        if right := _missing_right(connection, commands):
            refusal = self._connections.peer_log.forbidden(connection, right)
            # All or nothing: the commands of one request are meant to be applied together.
            self._respond(connection, request, [r.Refused("forbidden", refusal)] * len(commands))
            self._count(connection, right, "denied", started)
            return

        work = Request(commands, member, partial(self._answer, connection, request, commands))
        late = long and (self._turns.over or time.perf_counter() - started >= LONG_DECODE_SECONDS)
        if not (late or self._host.puts_off(work)) and self._host.proceed(work, self._turns.until):
            self._count_frame(connection, commands, started)
        else:
            self._turns.defer(connection, partial(self._go_on, connection, work))

    def _go_on(self, connection: Connection, work: Request, until: float) -> bool:
        """Continue a frame that was too long for one turn, or was put off; return whether it is done."""
        if self._host.puts_off(work):
            return False
        started = time.perf_counter()
        done = self._host.proceed(work, until)
        self._count_frame(connection, work.commands, started)
        return done

    def _count_frame(self, connection: Connection, commands: Sequence[c.Command], started: float) -> None:
        if commands:
            self._count(connection, _VERBS[type(commands[-1])], "ok", started)

    def _count(self, connection: Connection, method: str, result: str, started: float) -> None:
        seconds = time.perf_counter() - started
        self._host.observer.called(method, result, seconds)
        if seconds > NOTED_SECONDS:
            self._turns.note_part(method, str(connection.role), seconds)

    def _answer(
        self, connection: Connection, request: int, commands: Sequence[c.Command], replies: list[r.Reply]
    ) -> None:
        """Count the refusals among the replies to *commands*, and answer."""
        if r.Refused in map(type, replies):
            for command, reply in zip(commands, replies, strict=True):
                if isinstance(reply, r.Refused):
                    verb = _VERBS[type(command)]
                    self._connections.peer_log.refused_command(connection, reply.code, verb)
        self._respond(connection, request, replies)

    def _respond(self, connection: Connection, request: int, replies: list[r.Reply]) -> None:
        """Answer an outstanding request; if its replies cannot be encoded, by a refusal for each command."""
        connection.member.outstanding -= 1
        if connection.closed:
            return
        try:
            message = encode_response(request, replies)
        except Exception as error:  # noqa: BLE001  # the changes are committed: the manager has to go on
            text = f"the answer cannot be encoded: {type(error).__name__}"
            message = encode_response(request, [r.Refused(BadRequest.code, text)] * len(replies))
        self._connections.send(connection, message)


def _decoded_at_once(frame: memoryview) -> tuple[int, list[c.AnyCommand]]:
    """Decode a long frame; if it has very many parts, the collector never looks at them.

    It would do so three times, and each look takes about as long as to make them.
    """
    started = time.perf_counter()
    with looks_put_off():
        decoded = decode_request(frame)
        if time.perf_counter() - started >= LONG_DECODE_SECONDS:
            gc.freeze()
    return decoded


def _missing_right(connection: Connection, commands: Sequence[c.Command]) -> str:
    """Return a right for *commands* that the connection's key does not have; "" if it has all."""
    if connection.free_commands.issuperset(map(type, commands)):
        return ""  # the usual case
    role = connection.role or Role.READ
    return next((each.right() for each in commands if not may_command(role, each)), "")
