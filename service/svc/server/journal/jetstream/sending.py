"""The frames of a leader on their way into the stream, one after the other.

While one frame is under way, the commits of the next turns gather in the one after it. So each commit costs
one append at most, and under load many turns share one.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from svc.broker.journal import Ticket
from svc.errors import JournalError
from svc.server.journal.jetstream.frame_table import FrameTable, FrameUse
from svc.server.journal.jetstream.frames import Frame, FrameKind, commit_frame
from svc.server.journal.jetstream.log import Log, Unanswered
from svc.server.journal.jetstream.replica import frame_bytes
from svc.server.journal.jetstream.writer import FramePosition
from svc.server.journal.rows import EncodedRow, runs_of

#: A digest of the leader's rows follows every so many frames.
DIGEST_FRAMES: Final = 256
#: Bytes of rows with which a frame takes no more commits. A larger one is not faster, as it is split for the
#: servers, and it takes three times its bytes while it is sent.
FRAME_BYTES: Final = 4 * 1024 * 1024
#: Bytes of dead frames at the beginning of the stream at which they are purged.
PURGE_BYTES: Final = 4 * 1024 * 1024


class OutgoingFrame(msgspec.Struct, eq=False):
    """A frame that is not stored yet.

    Attributes:
        kind: its purpose.
        use: its entry in the table.
        rows: its rows.
        gone: the rows that it forgets.
        size: the bytes of its rows.
    """

    kind: FrameKind
    use: FrameUse
    rows: list[EncodedRow] = []
    gone: list[int] = []
    size: int = 0


class FrameTicket(Ticket):
    """The commit of a frame."""

    __slots__ = ("_frame", "_sender")

    def __init__(self, sender: Sender, frame: int) -> None:
        """Wait for frame number *frame* of *sender*."""
        self._sender = sender
        self._frame = frame

    def settled(self) -> bool:
        """Return whether the frame is stored; see `Ticket.settled`."""
        self._sender.require_sound()
        return self._sender.acknowledged >= self._frame

    def wait(self, seconds: float) -> bool:
        """Wait until it is, *seconds* at most; see `Ticket.wait`."""
        self._sender.wait(self._frame, seconds)
        return self.settled()


class Sender:
    """Appends the frames of one leader; `put` and `rewrite` are for its thread, all else for the log's loop.

    Attributes:
        acknowledged: the number of the last frame that is stored.
        failure: why no frame is stored any more; None if frames are.
        put_bytes: the bytes of all rows that were put so far.
        settled: is called in the log's loop whenever frames are stored, or cannot be.
    """

    def __init__(
        self,
        log: Log,
        table: FrameTable,
        append: Callable[[Frame], Awaitable[FramePosition]],
        *,
        wake: Callable[[Callable[[], None]], object],
    ) -> None:
        """Send frames with *append*.

        Args:
            log: the log, for purges.
            table: the rows of all frames.
            append: stores a frame, behind the one before it.
            wake: has a function called in the log's loop, from any thread.
        """
        self.acknowledged = table.opened
        self.put_bytes = 0
        self.settled: Callable[[], object] = lambda: None
        self._log = log
        self._table = table
        self._append = append
        self._wake = wake
        self._changed = threading.Condition()
        self._queue: deque[OutgoingFrame] = deque()
        self._ticket: FrameTicket | None = None
        self._idle = True
        self._work = asyncio.Event()
        self.failure: JournalError | None = None
        self._since_digest = 0
        self._purge_to = self._purge_bytes = 0

    # --- the leader's thread ------------------------------------------------------------------------

    def put(self, rows: Sequence[EncodedRow], gone: Sequence[int]) -> FrameTicket:
        """Add a commit to the next frame; return its ticket.

        Raises:
            JournalError: no frame is stored any more.
        """
        with self._changed:
            self.require_sound()
            frame = self._queue[-1] if self._queue else None
            if frame is None or frame.kind is not FrameKind.COMMIT or frame.size >= FRAME_BYTES:
                frame = self._enqueue(FrameKind.COMMIT)
                self._ticket = FrameTicket(self, frame.use.frame)
            dropped = set(gone)
            if dropped and frame.rows:
                # Replay applies the tombstones of a frame before its rows.
                frame.rows = [row for row in frame.rows if row[0] not in dropped]
            frame.rows += rows
            size = sum(len(body) for _, body in rows)
            frame.size += size
            self.put_bytes += size
            frame.gone += gone
            self._table.forget(runs_of(gone), frame.use.frame)
            self._table.add(frame.use, [number for number, _ in rows])
            ticket = self._ticket
        if self._idle:
            self._idle = False
            self._wake(self._work.set)
        assert ticket is not None  # the last frame is a commit, and has one
        return ticket

    def worth_rewriting(self, most: int) -> list[int]:
        """Return rows of the oldest frames, in about *most* bytes, if they are to be written again now."""
        if self.pending > 1 or not self._table.worth_rewriting():
            return []
        with self._changed:
            return self._table.oldest(most)

    def rewrite(self, rows: Sequence[EncodedRow]) -> None:
        """Write live rows of old frames again, so that these can be purged."""
        with self._changed:
            self.require_sound()
            frame = self._enqueue(FrameKind.REWRITE)
            frame.rows += rows
            self.put_bytes += sum(len(body) for _, body in rows)
            self._table.add(frame.use, [number for number, _ in rows])
        self._wake(self._work.set)

    def put_nothing(self) -> None:
        """Append an empty commit unless a frame is under way: it shows that this leader can. Any thread."""
        with self._changed:
            if self.failure is not None or self._queue or not self._idle:
                return
            self._idle = False
            frame = self._enqueue(FrameKind.COMMIT)
            self._ticket = FrameTicket(self, frame.use.frame)
        self._wake(self._work.set)

    def put_term(self) -> FrameTicket:
        """Begin the next term behind all frames so far; return its ticket."""
        with self._changed:
            self.require_sound()
            frame = self._enqueue(FrameKind.TERM)
        self._wake(self._work.set)
        return FrameTicket(self, frame.use.frame)

    def finish(self, seconds: float) -> None:
        """Return once all frames are stored, or after *seconds*, or if they cannot be stored."""
        self.wait(self._table.opened, seconds)

    @property
    def pending(self) -> int:
        """How many frames are not stored yet, without the one that is under way."""
        return len(self._queue)

    @property
    def unconfirmed(self) -> bool:
        """Whether a frame is not stored yet, the one that is under way included."""
        return self.acknowledged < self._table.opened

    def require_sound(self) -> None:
        """Return if frames can be stored.

        Raises:
            JournalError: they cannot.
        """
        if self.failure is not None:
            raise self.failure

    def wait(self, frame: int, seconds: float) -> None:
        """Return once a frame is stored, or after *seconds*, or if it cannot be stored."""
        with self._changed:
            self._changed.wait_for(lambda: self.failure is not None or self.acknowledged >= frame, seconds)

    # --- the log's loop -----------------------------------------------------------------------------

    async def run(self) -> None:
        """Send what is put, until it is cancelled or a frame cannot be stored."""
        try:
            while True:
                if (frame := self._next()) is not None:
                    await self._send(frame)
                else:
                    await self._work.wait()
        except JournalError as error:
            self.fail(error)

    def fail(self, error: JournalError) -> None:
        """Refuse all further frames."""
        with self._changed:
            self.failure = self.failure or error
            self._changed.notify_all()
        self.settled()

    def _next(self) -> Frame | None:
        """Return the content of the next frame, which takes no more from here on; None if there is none."""
        with self._changed:
            self._work.clear()
            self._idle = not self._queue
            if not self._queue:
                return None
            self._sent = sent = self._queue.popleft()
            self._since_digest += 1
            if not self._queue and self._since_digest >= DIGEST_FRAMES:
                self._since_digest = 0
                self._digest = self._table.digest_bytes()
                self._enqueue(FrameKind.DIGEST)
        if sent.kind is FrameKind.DIGEST:
            return Frame(FrameKind.DIGEST, digest=self._digest)
        return commit_frame(sent.rows, sorted(set(sent.gone)), sent.kind)

    async def _send(self, frame: Frame) -> None:
        sent = self._sent
        stored = await self._append(frame)
        with self._changed:
            self.acknowledged = sent.use.frame
            self._table.stored(sent.use, stored.last, frame_bytes(frame))
            last, size = self._table.purgeable(self.acknowledged)
            self._changed.notify_all()
        self.settled()
        self._purge_to = last or self._purge_to
        self._purge_bytes += size
        if self._purge_bytes >= PURGE_BYTES:
            await self._purge()

    async def _purge(self) -> None:
        """Purge the dead frames at the beginning; without an answer, a later call does it."""
        with contextlib.suppress(Unanswered):
            await self._log.purge(self._purge_to + 1)
            self._purge_bytes = 0

    def _enqueue(self, kind: FrameKind) -> OutgoingFrame:
        frame = OutgoingFrame(kind, self._table.open())
        self._queue.append(frame)
        return frame
