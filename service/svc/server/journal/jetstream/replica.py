"""A replica of the journal: a mirror on this host's disk, which follows the stream as it grows.

The mirror is an ordinary journal in a directory that is empty at each start. Reads and recovery use it, and
never wait for the network. A standby keeps it up to date. A takeover is then a fence in the stream, and the
usual recovery from the mirror.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Sequence
from itertools import chain
from typing import Final, TypeVar

import structlog

from svc.errors import CopyIncomplete, JournalError, JournalMoved
from svc.server.journal.jetstream.frame_table import FrameTable
from svc.server.journal.jetstream.frames import Frame, FrameAssembler, FrameError, FrameKind, StoredFrame
from svc.server.journal.jetstream.log import Log, LogMessage, PrefixPurged, Unanswered
from svc.server.journal.jetstream.loop_thread import end_tasks
from svc.server.journal.mirror import Mirror
from svc.server.journal.rows import EncodedRow

#: Seconds between two tries of a request that got no answer.
RETRY_SECONDS: Final = 0.25
#: Bytes of a frame beside its rows: headers, as far as they matter for the size of the stream.
_FRAME_BYTES: Final = 200
_ROW_BYTES: Final = 8
T = TypeVar("T")


class MirrorDiffers(Exception):
    """The mirror has other rows than the leader's; it is made anew."""


class Replica:
    """A mirror that follows a log; used by one asyncio loop, and after `stop` by its owner alone.

    Attributes:
        mirror: the journal that has the live rows.
        table: which frame has which of them.
        position: the sequence number of the last message that was taken.
        last: the sequence number of the last message of the log, as far as it is known.
        grown_at: the loop's time at which that message became known.
        caught_up: whether the mirror has all that was in the log when it was begun; safe from any thread.
        term: the highest term that was seen; 0 in an empty log.
        rebuilt: how many times the mirror was made anew.
        copy_of: the origin of the copy that the log is, as JSON, if it is not complete.
        failure: why it follows the log no more; None while it does.
        moved_to: the place to which the journal was moved; empty if it was not.
    """

    def __init__(self, log: Log, new_mirror: Callable[[], Mirror]) -> None:
        """Follow *log*; *new_mirror* makes an empty journal, in place of an earlier one."""
        self.log = log
        self.mirror = new_mirror()
        self.table = FrameTable()
        self.position = self.last = self.term = self.rebuilt = 0
        self.grown_at = -math.inf
        self.caught_up = False
        self.copy_of = self.moved_to = ""
        self._new_mirror = new_mirror
        self._assembler = FrameAssembler()
        #: What the frames that are taken now add and delete; a number that is gone never comes back.
        self._rows: list[EncodedRow] = []
        self._gone: list[int] = []
        #: A digest up to here is of rows that may be purged by now; only later ones can be compared.
        self._fresh_after = 0
        self._moved = asyncio.Event()
        self._following: asyncio.Task[None] | None = None
        self.failure: JournalError | None = None
        self._log = structlog.get_logger("svc.manager")

    @property
    def ignored(self) -> int:
        """How many messages of unfinished frames were passed over."""
        return self._assembler.ignored

    @property
    def lag(self) -> int:
        """How many messages of the log are not yet in the mirror."""
        return max(0, self.last - self.position)

    def start(self) -> None:
        """Begin to follow the log."""
        self._following = asyncio.get_running_loop().create_task(self._follow())
        self._following.add_done_callback(self._ended)

    async def stop(self) -> None:
        """Stop following it."""
        task, self._following = self._following, None
        if task is not None:
            await end_tasks(task)

    async def catch_up(self) -> None:
        """Return when all is in the mirror that was in the log at the time of the call.

        Raises:
            JournalError: the stream cannot be read.
        """
        await self.reach((await answered(self.log.tail)).last)

    async def reach(self, sequence: int) -> None:
        """Return when message *sequence* of the log is in the mirror.

        Raises:
            JournalError: the stream cannot be read.
        """
        self._note_last(sequence)
        while self.position < sequence and self.failure is None:
            self._moved.clear()
            await self._moved.wait()
        if self.failure is not None:
            raise self.failure

    async def rest(self, seconds: float, until: float = math.inf) -> bool:
        """Wait until no newer message of the log has become known for some *seconds*.

        Return whether that was so before the loop's time *until*.
        """
        clock = asyncio.get_running_loop().time
        while (left := self.grown_at + seconds - clock()) > 0:
            if clock() >= until:
                return False
            await asyncio.sleep(left)
        return True

    def _note_last(self, sequence: int) -> None:
        if sequence > self.last:
            self.last, self.grown_at = sequence, asyncio.get_running_loop().time()

    # --- following ----------------------------------------------------------------------------------

    async def _follow(self) -> None:
        try:
            while True:
                try:
                    await self._follow_from((await answered(self.log.facts)).first)
                except (PrefixPurged, MirrorDiffers) as error:
                    self._begin_anew(error)
        except JournalError as error:
            self._fail(error)
        except FrameError as error:
            self._fail(unreadable(self.position + 1, error))

    async def _follow_from(self, first: int) -> None:
        """Apply the messages of the log one after the other, from *first* on in an empty mirror."""
        if not self.position:
            self._fresh_after = (await answered(self.log.tail)).last
            self._note_last(self._fresh_after)
            self.position = first - 1
            self._assembler.after = first - 1 or None
            self.caught_up = self.position >= self._fresh_after
        arrived: list[LogMessage] = []
        async for message in self.log.follow(self.position + 1):
            arrived.append(message)
            if not message.more:
                self.take(arrived)
                arrived = []
                await asyncio.sleep(0)

    def take(self, messages: Sequence[LogMessage]) -> None:
        """Apply the next messages to the mirror, in one transaction.

        Raises:
            FrameError: one of them cannot be read.
            MirrorDiffers: a digest tells that the mirror has other rows than its writer.
            JournalError: the mirror cannot be written.
        """
        for message in messages:
            stored = self._assembler.add(message.sequence, message.data)
            self.position = message.sequence
            self._note_last(message.sequence)
            if stored is not None:
                self.apply(stored)
        self._write()
        self.caught_up = self.caught_up or self.position >= self._fresh_after
        self._moved.set()

    def apply(self, stored: StoredFrame) -> None:
        """Note the changes of a whole frame: first its tombstones, then its rows that are not there yet."""
        frame = stored.frame
        self.term = max(self.term, stored.origin.term)
        if frame.kind is FrameKind.DIGEST and stored.first > self._fresh_after:
            self._compare(frame.digest)
        if frame.place:
            self.copy_of = frame.place if frame.kind is FrameKind.COPY else ""
            self.moved_to = frame.place if frame.kind is FrameKind.MOVED else ""
        frame.require_known()
        use, rows = self.table.open(), frame.rows
        self.table.forget(frame.forget, use.frame)
        if frame.kind is FrameKind.REWRITE:
            rows = [row for row in rows if row[0] not in self.table]
        self._rows += rows
        self._gone += chain.from_iterable(range(first, last + 1) for first, last in frame.forget)
        self.table.add(use, [number for number, _ in frame.rows])
        self.table.stored(use, stored.last, frame_bytes(frame))

    def _write(self) -> None:
        """Write what was noted in one transaction: for a small frame, that costs more than its rows."""
        rows, gone = self._rows, self._gone
        self._rows, self._gone = [], []
        if rows or gone:
            self.mirror.append_encoded(rows, gone)

    def _compare(self, digest: bytes) -> None:
        if digest != self.table.digest_bytes():
            raise MirrorDiffers("the mirror of the journal has other rows than the leader's")

    def _begin_anew(self, error: Exception) -> None:
        """Make the mirror anew: it lags behind a purge, or differs from the leader's."""
        if isinstance(error, MirrorDiffers):
            if self.rebuilt:
                raise JournalError(f"{error}, also after it was made anew; report the fault") from error
            self.rebuilt += 1
        self.caught_up = False
        self._log.warning("mirror_made_anew", reason=str(error), position=self.position)
        self.mirror.close()
        self.mirror = self._new_mirror()
        self.table = FrameTable()
        self._assembler = FrameAssembler()
        self._rows, self._gone = [], []
        self.position = 0

    def require_served(self) -> None:
        """Return if the journal may be served.

        Raises:
            JournalMoved: it was moved elsewhere.
            CopyIncomplete: it is a copy that is not complete.
        """
        if self.moved_to:
            raise JournalMoved(f"the journal was moved to {self.moved_to}; start the manager there")
        if self.copy_of:
            raise CopyIncomplete(
                "the stream is a copy of another journal that is not complete; run the same "
                "`svc journal copy` again, which goes on with it, or delete the stream"
            )

    def _ended(self, following: asyncio.Task[None]) -> None:
        """Fail if the task has ended by an error that nobody expected: a takeover would wait for ever."""
        error = None if following.cancelled() else following.exception()
        if error is not None:
            self._fail(JournalError(f"the stream is followed no more ({error!r}); report the fault"))

    def _fail(self, error: JournalError) -> None:
        self.failure, self.caught_up = error, False
        self._moved.set()


def frame_bytes(frame: Frame) -> int:
    """Return the bytes that a frame takes in the stream, roughly."""
    return _FRAME_BYTES + sum(len(body) + _ROW_BYTES for _, body in frame.rows)


async def answered(ask: Callable[[], Awaitable[T]]) -> T:
    """Return the answer of the log to *ask*, which is repeated until there is one."""
    while True:
        with contextlib.suppress(Unanswered):
            return await ask()
        await asyncio.sleep(RETRY_SECONDS)


def unreadable(sequence: int, error: FrameError) -> JournalError:
    """Return the error for a message of the stream that cannot be used."""
    return JournalError(
        f"message {sequence} of the journal's stream cannot be used: {error}; keep the stream as it is, then "
        "start a newer release, or restore a backup into a new stream"
    )
