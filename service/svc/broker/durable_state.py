"""The state of a queue with its journal and its clock: recovery, upkeep of the journal, and facts."""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, Final

import msgspec

from svc.broker.broken import Blocklist, only_reads
from svc.broker.clock import ManagerClock
from svc.broker.commit import GroupCommit
from svc.broker.journal import Journal
from svc.broker.requests import Request
from svc.domain import admission
from svc.domain import commands as c
from svc.domain import events as e
from svc.domain import replies as r
from svc.domain.enrolment import recover
from svc.domain.job import RESULTS_QUEUE
from svc.domain.lifecycle import JobState
from svc.domain.limits import Limits
from svc.domain.members import Member
from svc.domain.observer import Observer
from svc.domain.queue_state import QueueState
from svc.domain.refusals import Refusal
from svc.domain.replay import replay
from svc.errors import Conflict, ServiceError
from svc.wire import RELEASE

#: Seconds between two notes of what the clock shows, for the next start.
TIME_NOTED_SECONDS = 10.0
#: Commands that change the state and bring no content.
_SMALL: Final = frozenset((c.Hello, c.Extend, c.Ping))
#: Seconds for which `settle` waits.
SETTLE_SECONDS = 10.0
#: Seconds by which the clock may be off, and is right.
_CLOCK_RIGHT_SECONDS = 1.0


class DurableState:
    """A `QueueState` whose events are in a journal; `host.QueueHost` serves requests to it.

    Attributes:
        state: the queue.
        commits: commits its events.
        clock: tells the time.
        clock_accepted: whether the clock is to be set once this turn is over: see `set_clock`.
        recovered_jobs: the unfinished jobs of the last recovery.
        recovery_seconds: the seconds that it took.
        blocklist: requests that are refused because they broke the state before.
        careful: whether the state has been recovered in place. If so, a request that only reads is refused
            if it fails; it does not break the state again.
    """

    def __init__(
        self,
        journal: Journal,
        clock: ManagerClock | None,
        limits: Limits | None,
        observer: Observer | None,
        max_clock_jump: float,
    ) -> None:
        """Recover the queue from *journal*; the parameters are those of `host.QueueHost`.

        Raises:
            JournalError: a row cannot be read.
        """
        self.journal = journal
        self.observer = observer or Observer()
        self.limits = limits or Limits()
        self._max_clock_jump = max_clock_jump
        self._may_set_clock = clock is None and max_clock_jump < math.inf
        self.clock_accepted = False
        self.blocklist = Blocklist()
        self.careful = False
        self._next_note = 0.0
        self._begin_empty()
        self._recover(clock)
        self._started_at = self.clock.now()

    @property
    def incarnation(self) -> int:
        """The number of this life of the journal."""
        return self.journal.incarnation

    @property
    def passed_over(self) -> int:
        """How many steps the last replay skipped, because they contradict earlier ones."""
        return self.state.ledger.passed_over

    # --- recovery -----------------------------------------------------------------------------------

    def discard(self) -> None:
        """Replace the state by an empty one; all that was not committed or answered is lost."""
        self._begin_empty(self.state.refusals)

    def _begin_empty(self, refusals: frozenset[Refusal] = frozenset()) -> None:
        self.state = QueueState(incarnation=self.incarnation, observer=self.observer, limits=self.limits)
        self.state.refusals = refusals
        self.commits = GroupCommit(self.state, self.journal, self.observer, self._now)

    def _now(self) -> float:
        return self.clock.now()  # the clock comes after the recovery

    def _recover(self, clock: ManagerClock | None) -> None:
        started = time.perf_counter()
        ledger = self.state.ledger
        for sequence, event in self.journal.replay():
            replay(ledger, sequence, event)
        self.clock: ManagerClock = clock or ManagerClock(
            ledger.last_at, expected=self.journal.expected_time(), jump_max=self._max_clock_jump
        )
        recover(self.state, self.clock.now())
        self.recovered_jobs = sum(chunk.unfinished for chunk in ledger.chunks.values())
        self.recovery_seconds = time.perf_counter() - started
        self.observer.measured("svc_journal_recovered_jobs", self.recovered_jobs)
        self.observer.measured("svc_journal_recovery_seconds", self.recovery_seconds)

    def recover_in_place(self) -> None:
        """Begin a new incarnation of the journal, and recover the state from it after `discard`.

        Raises:
            JournalError: the journal cannot be written or read.
        """
        self.journal.begin_incarnation()
        self.careful = True
        self.discard()
        self._recover(self.clock)

    def hand_over(self) -> r.Reply:
        """Let another manager lead; refused, as this one has its journal alone."""
        return r.Refused(
            Conflict.code, "no other manager can lead: the journal is on this manager's own disk"
        )

    # --- clock --------------------------------------------------------------------------------------

    def accept_clock(self) -> bool:
        """Have the clock set after this turn if it is off and may be set; return whether it will be."""
        self.clock_accepted = self._may_set_clock and abs(self.clock.behind()) >= _CLOCK_RIGHT_SECONDS
        return self.clock_accepted

    def set_clock(self) -> float:
        """Set the clock to the host's time of day, and recover the queue on that; return by how much.

        Nothing else may hold any of the old state, which is dropped: its deadlines are of another time.

        Raises:
            JournalError: the journal cannot be written or read.
        """
        now, leap = self.clock.now(), self.clock.behind()
        self.clock_accepted = False
        self.state.record(e.ClockSet(now + leap, now))
        self.commits.commit()
        self.journal.begin_incarnation()
        self.discard()
        self._recover(ManagerClock())
        self.journal.note_time(self.clock.now())
        self._started_at += leap
        return leap

    # --- journal ------------------------------------------------------------------------------------

    def look_at_journal(self) -> int | None:
        """Note the time for the next start, now and then; return the free bytes of the journal's disk."""
        now = self.clock.now()
        if now >= self._next_note:
            self._next_note = now + TIME_NOTED_SECONDS
            self.journal.note_time(now)
        free = self.journal.free_bytes()
        self.state.free_bytes = math.inf if free is None else free
        self.observer.measured("svc_large_values_bytes", self.state.ledger.large.size)
        self.observer.measured("svc_large_values_limit_bytes", self.limits.all_values_bytes)
        return free

    def on_settled(self, call: Callable[[], object]) -> None:
        """Have *call* called, from any thread, whenever a commit that other hosts confirm is durable."""
        self.journal.notify = call

    def settle(self) -> None:
        """Wait until the last commit is durable, if other hosts have to confirm it, and deliver its replies.

        Raises:
            JournalError: it failed.
        """
        self.commits.settle(SETTLE_SECONDS)

    @property
    def behind(self) -> bool:
        """Whether so much waits for the journal that requests with content have to wait, too."""
        return self.commits.outbox.behind and self.commits.unsettled.full

    def puts_off(self, request: Request) -> bool:
        """Return whether *request* is not to be begun yet, as the journal is behind.

        Those without content are begun: a worker's renewals, pings, and requests that only read.
        """
        return self.behind and not (
            request.replies or all(type(each) in _SMALL or only_reads(each) for each in request.commands)
        )

    # --- facts and members ----------------------------------------------------------------------------

    def backup(self, name: str) -> r.Reply:
        """Begin a backup of the journal, or tell its progress."""
        try:
            return msgspec.structs.replace(self.journal.backup(name), host=socket.gethostname())
        except ServiceError as error:
            return r.Refused(error.code, str(error))

    def completed(self, reply: r.Totals | r.Welcome) -> r.Reply:
        """Return a reply of the state with the facts about the journal, the clock and the program."""
        if isinstance(reply, r.Welcome):
            return msgspec.structs.replace(reply, release=RELEASE)
        return msgspec.structs.replace(
            reply,
            uptime=self.clock.now() - self._started_at,
            journal_bytes=self.journal.size(),
            durability=self.journal.durability,
            release=RELEASE,
            clock_offset=self.clock.behind(),
            clock_held=self.clock.held,
        )

    def connected(self, member: Member) -> None:
        """Take in a new connection."""
        self.state.arrived(member)

    def refuse(self, refusal: Refusal, *, on: bool) -> None:
        """Refuse new jobs for this reason, or stop refusing them for it."""
        self.state.refuse(refusal, on=on)

    def takeable(self, queue: str) -> int:
        """Return how many entries of *queue* a plain client could take now."""
        counts = self.state.ledger.counts.get(queue)
        ready = counts[JobState.READY] if counts is not None else 0
        return ready + len(self.state.ledger.answers) if queue == RESULTS_QUEUE else ready

    def is_full(self, queue: str) -> bool:
        """Return whether a put of a plain client into *queue* would wait."""
        return not admission.has_room(self.state, queue)

    def figures(self) -> dict[str, Any]:
        """Return numbers and settings for a report of a fault; nothing in them is of a job's content."""
        counts = self.state.ledger.counts.values()
        return {
            "jobs": {state.word: sum(each[state] for each in counts) for state in JobState},
            "incarnation": self.state.incarnation,
            "last_sequence": self.state.ledger.last_sequence,
            "durability": self.journal.durability,
            "limits": asdict(self.limits),
        }
