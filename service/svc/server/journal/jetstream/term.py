"""The term of a leader: its fence in the stream, and its frames behind it."""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Callable
from typing import Final

from svc.errors import Conflict, Deposed
from svc.server.journal.jetstream.frames import Frame, FrameKind
from svc.server.journal.jetstream.log import Log
from svc.server.journal.jetstream.replica import Replica, answered
from svc.server.journal.jetstream.sending import Sender
from svc.server.journal.jetstream.writer import FramePosition, FrameWriter

_STILL_WRITTEN: Final = (
    "another manager has written the journal for {:g} s while the key in this manager's bucket named this "
    "one: it leads in another bucket. This one has written nothing. See that all managers of the journal "
    "have the same NATS account and the same release of svc"
)


class LeaderTerm:
    """The right of one manager to write, until another one begins a term; used by the log's loop.

    Attributes:
        number: the number of the term; 0 until it has begun.
        sender: its frames on their way.
    """

    def __init__(self, log: Log, replica: Replica, wake: Callable[[Callable[[], None]], object]) -> None:
        """Prepare a term with the rows of *replica*; *wake* has a function called in the log's loop."""
        self.number = 0
        self._log = log
        self._replica = replica
        self._wake = wake
        self._stored: Callable[[float], object] = _ignored
        self._writer: FrameWriter | None = None
        self._sending: asyncio.Task[None] | None = None
        self.sender: Sender

    async def begin(
        self,
        silence: float = 0.0,
        stored: Callable[[float], object] | None = None,
        *,
        free: bool = False,
        patience: float = math.inf,
    ) -> None:
        """Write the first frame of the term: the fence, behind which no earlier leader can write.

        The fence follows a message that this manager has known as the last one for *silence* seconds. So a
        leader one of whose appends was stored knows that no later term begins within that time of its
        beginning. It does not matter whether the end that we know is old: then the fence is refused.

        Args:
            silence: that time.
            stored: called in the log's loop for each message of the term that is stored, with the loop's time
                at which it was first sent.
            free: whether the earlier leader serves no more. Then the first try does not wait; if another
                manager has written meanwhile, the next ones do.
            patience: the seconds for which an earlier leader may write on, though this one has the key.

        Raises:
            Conflict: one has written for longer.
            JournalError: the stream cannot be read.
            JournalMoved: the journal was moved elsewhere.
            CopyIncomplete: it is a copy that is not complete.
        """
        self._stored = stored or self._stored
        replica, begun, number = self._replica, None, 0
        clock, until = asyncio.get_running_loop().time, math.inf
        while begun is None:
            await replica.catch_up()
            until = min(until, clock() + patience)
            if not await replica.rest(0.0 if free else silence, until):
                raise Conflict(_STILL_WRITTEN.format(patience))
            replica.require_served()
            number = replica.term + 1
            try:
                begun = await self._open(number, replica.position)
            except Deposed:  # another one has written meanwhile; the next try fences it
                free = False
        await replica.reach(begun.last)
        await replica.stop()
        self.sender = Sender(self._log, replica.table, self._append, wake=self._wake)
        self._sending = asyncio.get_running_loop().create_task(self.sender.run())
        self.number = number  # last: who sees it, in whatever thread, finds a sender

    @property
    def last(self) -> int:
        """The number of the last message that is known to be written in this term."""
        return 0 if self._writer is None else self._writer.end

    @property
    def trouble(self) -> str:
        """Why the servers do not take the frame that is under way, as they say; empty if they do."""
        return "" if self._writer is None else self._writer.trouble

    def end(self) -> None:
        """Send no more frames."""
        if self._sending is not None:
            self._sending.cancel()

    async def _append(self, frame: Frame) -> FramePosition:
        assert self._writer is not None  # the sender exists only in a term
        if frame.kind is FrameKind.TERM:
            position = await self._open(self.number + 1, self._writer.end)
            self.number += 1
            return position
        return await self._writer.append(frame)

    async def _open(self, number: int, end: int) -> FramePosition:
        facts = await answered(self._log.facts)
        self._writer = FrameWriter(
            self._log,
            term=number,
            writer=secrets.randbits(64),
            end=end,
            message_max=facts.message_max,
            stored=self._stored,
        )
        return await self._writer.append(Frame(FrameKind.TERM))


def _ignored(_started: float) -> None:
    pass
