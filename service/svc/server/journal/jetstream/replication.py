"""The replica of one manager, from its opening as a standby to the end of its term as a leader."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import structlog

from svc.errors import JournalError
from svc.server.journal.jetstream.follower_watch import FollowerWatch
from svc.server.journal.jetstream.frame_table import FrameTable
from svc.server.journal.jetstream.journal import JetStreamJournal
from svc.server.journal.jetstream.log import Log, LogLost
from svc.server.journal.jetstream.loop_thread import LoopThread, end_tasks
from svc.server.journal.jetstream.mirror_folder import MirrorFolder
from svc.server.journal.jetstream.replica import Replica, answered
from svc.server.journal.jetstream.room import RoomWatch
from svc.server.journal.jetstream.sending import Sender
from svc.server.journal.jetstream.term import LeaderTerm
from svc.server.journal.mirror import Mirror

T = TypeVar("T")
#: Seconds for which the end of a term waits for the frames that are under way.
END_SECONDS: Final = 10.0


class OpenLog(Log, Protocol):
    """A log that can be closed, and tells its room and its risks."""

    #: What its servers told last with which they may lose writes, one sentence each.
    risks: tuple[str, ...]

    async def room(self) -> int | None:
        """Return the bytes that it can still take; None if the servers do not tell."""

    async def close(self) -> None:
        """End the connection."""


class Replication:
    """A replica that can take over; `open` makes it."""

    def __init__(self, log: OpenLog, thread: LoopThread, folder: MirrorFolder) -> None:
        """Keep a mirror of *log* in *folder*; see `open`."""
        self._log = log
        self._thread = thread
        self._folder = folder
        self.replica = Replica(log, folder.new)
        self._term = LeaderTerm(log, self.replica, thread.post)
        self._beginning: asyncio.Task[None] | None = None
        self._given_up = False
        self._giving_up: asyncio.Task[None] | None = None
        self._room = RoomWatch(log.room, lambda: self.sender.put_bytes, lambda: log.risks)
        #: Returns how many followers of the log a leader knows; infinite if it need not show that it lives.
        self.known_followers: Callable[[], float] = lambda: math.inf
        self._followers = FollowerWatch(
            log.facts,
            lambda: self._term.last,
            self._known_followers,
            self._append_nothing,
        )
        self._watching: list[asyncio.Task[None]] = []

    @classmethod
    def open(
        cls,
        connect: Callable[[], Coroutine[Any, Any, OpenLog]],
        folder: Path,
        *,
        backups: Path | None = None,
    ) -> Replication:
        """Open the log with *connect*, and begin to follow it.

        Args:
            connect: returns the log.
            folder: the folder of the mirror.
            backups: the folder for online backups; None for that of the mirror with `.backups` appended.

        Raises:
            ServiceError: *connect* has failed, or the mirror cannot be made.
        """
        owned, thread = MirrorFolder(folder, backups), LoopThread("journal")
        thread.start()
        try:
            replication = cls(thread.run(connect()), thread, owned)
        except BaseException:
            thread.stop()
            owned.close()
            raise
        thread.post(replication.replica.start)
        return replication

    @property
    def mirror(self) -> Mirror:
        """The journal on this host's disk that has the live rows."""
        return self.replica.mirror

    @property
    def table(self) -> FrameTable:
        """The rows of each frame of the stream."""
        return self.replica.table

    @property
    def number(self) -> int:
        """The number of the term in which this manager writes."""
        return self._term.number

    @property
    def trouble(self) -> str:
        """Why the servers do not take the frame that is under way, as they say; empty if they do."""
        return self._term.trouble

    @property
    def sender(self) -> Sender:
        """The frames on their way; only for a leader."""
        return self._term.sender

    def room(self) -> int | None:
        """Return the bytes that the stream can still take; None if that is not known."""
        return self._room.left()

    def warnings(self) -> tuple[str, ...]:
        """Return facts about the stream and its servers at which an operator should look."""
        return self._thread.run(answered(self._log.facts)).warnings

    def run(self, work: Coroutine[Any, Any, T], seconds: float | None = None) -> T:
        """Return the result of *work*, which runs in the loop of the log."""
        return self._thread.run(work, seconds)

    def take_over(
        self,
        silence: float = 0.0,
        stored: Callable[[float], object] | None = None,
        *,
        free: bool = False,
        patience: float = math.inf,
    ) -> JetStreamJournal:
        """Begin a term of this manager: the one before it can write no more. See `LeaderTerm.begin`.

        Raises:
            Conflict: an earlier leader writes on.
            JournalError: the stream cannot be read.
            JournalMoved: the journal was moved elsewhere.
            CopyIncomplete: it is a copy that is not complete.
            CancelledError: `give_up` was called before this returned.
        """
        self._thread.run(self._begin(self._term.begin(silence, stored, free=free, patience=patience)))
        return JetStreamJournal(self)

    def give_up(self) -> None:
        """Have `take_over` end; safe from a signal handler."""
        self._thread.post(self._cancel)

    async def _begin(self, term: Coroutine[Any, Any, None]) -> None:
        self._beginning = asyncio.current_task()
        if self._given_up:
            term.close()
            raise asyncio.CancelledError
        await term
        self._watching = [asyncio.ensure_future(watch.run()) for watch in (self._room, self._followers)]
        if self._given_up:  # at the last moment: `close` ends the term
            raise asyncio.CancelledError

    def _known_followers(self) -> float:
        return self.known_followers()

    def _append_nothing(self) -> None:
        self.sender.put_nothing()

    def _cancel(self) -> None:
        self._given_up = True
        if self._beginning is not None:
            self._giving_up = asyncio.ensure_future(end_tasks(self._beginning))

    def begin_next(self) -> None:
        """Begin the next term of this manager, behind all frames that are under way.

        The mirror has to have all of these before it is replayed, so the manager's loop waits for them, as
        for the rest of a recovery in place: up to `END_SECONDS`, within which an election of the stream ends.

        Raises:
            JournalError: this manager was deposed, or the stream does not answer.
        """
        if not self.sender.put_term().wait(END_SECONDS):
            raise JournalError(f"the stream of the journal has not answered within {END_SECONDS:g} s")

    def close(self) -> None:
        """Wait for the frames that are under way, end the connection, and delete the mirror.

        If the stream is lost, the mirror is kept under another name.
        """
        if self._term.number:
            self.sender.finish(END_SECONDS)
        self._thread.run(self._end())
        self._thread.stop()
        self.mirror.close()
        if self._lost:
            kept = self._folder.keep()
            log = structlog.get_logger("svc.manager")
            log.error("mirror_kept", path=str(kept))
        else:
            self._folder.close()

    @property
    def _lost(self) -> bool:
        """Whether the stream is lost, so that the mirror may be the only copy of the journal."""
        sent = self.sender.failure if self._term.number else None
        return any(isinstance(error, LogLost) for error in (sent, self.replica.failure))

    async def _end(self) -> None:
        await self.replica.stop()
        for task in self._watching:
            task.cancel()
        self._term.end()
        await self._log.close()
