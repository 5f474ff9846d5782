"""The protocol of a connection: its opening, then frames of svc's clients or calls of plain ones."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial

from svc.broker.host import QueueHost
from svc.broker.waiting import Request
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.roles import Role
from svc.errors import BadRequest
from svc.server.connection import Connection, Stage
from svc.server.connections import Connections
from svc.server.keys import KeyRing
from svc.server.loop import NOTED_SECONDS, Turns
from svc.server.opening import Opening
from svc.server.plain_calls import PlainCalls
from svc.server.roles import may_command
from svc.wire import decode_request, encode_response, request_frame

#: Bytes of a frame from which to decode it may take so long that it is carried out in the next turn.
LONG_FRAME_BYTES = 64 * 1024
_SERVING = Stage.SERVING


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
        """Start a new numbering of plain clients' puts, under the journal's new incarnation."""
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
        try:
            request, commands = decode_request(frame)
        except BadRequest as error:
            self._connections.peer_log.refused_call(connection, "malformed", "frame")
            self._respond(connection, 0, [r.Refused(error.code, str(error))])
            return

        for command in commands:
            if type(command) not in connection.free_commands and not may_command(
                connection.role or Role.READ, command
            ):
                refusal = self._connections.peer_log.forbidden(connection, command.right())
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
            self._count(connection, str(commands[-1].__struct_config__.tag), "ok", started)

    def _count(self, connection: Connection, method: str, result: str, started: float) -> None:
        seconds = time.perf_counter() - started
        self._host.observer.called(method, result, seconds)
        if seconds > NOTED_SECONDS:
            self._turns.note_part(method, str(connection.role), seconds)

    def _respond(self, connection: Connection, request: int, replies: list[r.Reply]) -> None:
        if not connection.closed:
            self._connections.send(connection, _response(request, replies))


def _response(request: int, replies: list[r.Reply]) -> bytearray:
    """Return the answer to a frame; if it cannot be encoded, a refusal for each command."""
    try:
        return encode_response(request, replies)
    except Exception as error:  # noqa: BLE001  # the changes are committed: the manager has to go on
        refusal = r.Refused(BadRequest.code, f"the answer cannot be encoded: {type(error).__name__}")
        return encode_response(request, [refusal] * len(replies))
