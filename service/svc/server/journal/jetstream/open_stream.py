"""A journal's stream for a command that reads or writes it from its own thread, and waits for each answer."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import msgspec

from svc.errors import JournalUnreachable
from svc.server.journal.copying import CopyOrigin
from svc.server.journal.jetstream.frames import FrameAssembler, FrameError, FrameKind, StoredFrame
from svc.server.journal.jetstream.log import Log, LogMessage
from svc.server.journal.jetstream.loop_thread import LoopThread
from svc.server.journal.jetstream.mirror_folder import MirrorFolder
from svc.server.journal.jetstream.replica import Replica, answered, unreadable

T = TypeVar("T")
#: Seconds without an answer after which a command gives up; an election takes 9 at most.
STALL_SECONDS: Final = 60.0


class ServedLog(Log, Protocol):
    """A log that can be closed, and that knows who serves the journal in it."""

    async def serving(self) -> str:
        """Return the addresses of the manager that serves the journal now; empty if none does."""

    async def close(self) -> None:
        """End the connection."""


class OpenStream:
    """The log of a journal, in a loop in a thread of its own, until `close`."""

    def __init__(self, connect: Callable[[], Coroutine[Any, Any, ServedLog]], place: str) -> None:
        """Open the log with *connect*; *place* is its address, for texts.

        Raises:
            ServiceError: *connect* has failed.
        """
        self.place = place
        self._thread = LoopThread("journal")
        self._thread.start()
        try:
            self.log = self._thread.run(connect())
        except BaseException:
            self._thread.stop()
            raise

    def ask(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of *work*.

        Raises:
            JournalUnreachable: there is none within `STALL_SECONDS`.
        """
        try:
            return self._thread.run(work, STALL_SECONDS)
        except TimeoutError:
            raise self.silence() from None

    def silence(self) -> JournalUnreachable:
        """Return the error for servers that do not answer."""
        return JournalUnreachable(
            f"the NATS servers of {self.place} have not done what was asked within {STALL_SECONDS:g} s; see "
            "that they run and have room, then run the same command again"
        )

    def last(self) -> int:
        """Return the number of the last message."""
        return self.ask(answered(self.log.tail)).last

    def frames(self, last: int) -> Iterator[StoredFrame]:
        """Yield all frames up to message *last*, from the first message on.

        Raises:
            JournalError: a message is damaged or missing.
            PrefixPurged: the first message was purged.
        """
        assembler, position = FrameAssembler(after=0), 0
        messages = self.log.follow(1)
        try:
            while position < last:
                message = self.ask(_next(messages))
                position = message.sequence
                try:
                    stored = assembler.add(message.sequence, message.data)
                except FrameError as error:
                    raise unreadable(position, error) from None
                if stored is not None:
                    yield stored
        finally:
            with suppress(RuntimeError, JournalUnreachable):  # a step that got no answer has not ended yet
                self.ask(messages.aclose())

    def fill(self, replica: Replica) -> None:
        """Have *replica* take all messages that there are now, and none after those.

        Raises:
            JournalError: the stream cannot be read.
        """
        self._thread.post(replica.start)
        last = self.last()
        try:
            while replica.position < last:
                before = replica.position
                try:
                    self._thread.run(replica.reach(last), STALL_SECONDS)
                except TimeoutError:
                    if replica.position == before:
                        raise self.silence() from None
        finally:
            self.ask(replica.stop())

    def close(self) -> None:
        """End the connection and the thread."""
        self._thread.run(self.log.close())
        self._thread.stop()


class CountingReplica(Replica):
    """A replica in a temporary folder, which counts the frames and compares all digests.

    Attributes:
        frames: how many frames there are of each kind.
        served_term: the term of the last manager; 0 for none.
        end: the number of the last message before the journal was moved; None if it was not.
        compared: how many digests were compared with the rows so far.
        differing: how many of them differed.
    """

    def __init__(self, log: Log) -> None:
        """Follow *log*."""
        self._folder = tempfile.TemporaryDirectory(prefix="svc-journal-")
        self._mirrors = MirrorFolder(Path(self._folder.name))
        super().__init__(log, self._mirrors.new)
        self.frames: Counter[FrameKind] = Counter()
        self.served_term = self.compared = self.differing = 0
        self.end: int | None = None

    def apply(self, stored: StoredFrame) -> None:
        """Apply a frame, and count it; see `Replica.apply`."""
        super().apply(stored)
        kind = stored.frame.kind
        self.frames[kind] += 1
        if kind is not FrameKind.MOVED:
            self.served_term, self.end = stored.origin.term, None
        elif self.end is None:
            self.end = stored.first - 1

    def copied_place(self) -> str:
        """Return the journal of which the stream is a copy that is not complete; empty if it is none."""
        return msgspec.json.decode(self.copy_of, type=CopyOrigin).place if self.copy_of else ""

    def close(self) -> None:
        """Delete the mirror."""
        self.mirror.close()
        self._mirrors.close()
        self._folder.cleanup()

    def _compare(self, digest: bytes) -> None:
        self.compared += 1
        self.differing += digest != self.table.digest_bytes()

    def _begin_anew(self, error: Exception) -> None:
        super()._begin_anew(error)
        self.frames.clear()
        self.served_term = self.compared = self.differing = 0
        self.end = None


async def _next(messages: AsyncGenerator[LogMessage]) -> LogMessage:
    return await anext(messages)
