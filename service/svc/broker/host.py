"""The queue with its journal, which both the manager's loop and the in-process broker run.

A *turn* applies requests as they come (`call`). Then `turn` answers the requests that wait, commits all
events at once, and only then delivers the replies. Nothing is acknowledged before it is durable, and one
fsync serves all requests of the turn. Only early grants leave before the commit; see `broker.outbox`.

An exception inside the queue is raised as `broker.broken.StateBroken`. The caller must then discard the state
and recover it from the journal.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from svc.broker.answers import backup, completed
from svc.broker.broken import Blamed, Guard, Makers, Place, StateBroken, is_told, only_reads, unread
from svc.broker.clock import CLOCK_JUMP_MAX, Clock, ManagerClock, behind, settle
from svc.broker.expositions import SLICE_SECONDS, Expositions
from svc.broker.journal import Journal
from svc.broker.outbox import Outbox
from svc.broker.recent import Recent
from svc.broker.request import UNTIMED_COMMANDS, UNTIMED_SECONDS, Request
from svc.broker.surveys import Surveys
from svc.broker.waiting import Deliver, Waiters, Waiting, impatient
from svc.domain import admission, upkeep
from svc.domain import commands as c
from svc.domain import events as e
from svc.domain import replies as r
from svc.domain.apply import apply, charge
from svc.domain.limits import Limits
from svc.domain.members import Member
from svc.domain.observer import Observer
from svc.domain.queue_state import Notice, QueueState
from svc.domain.refusals import Refusal
from svc.domain.replay import replay
from svc.domain.room import Room
from svc.errors import JournalError

#: Seconds between two checks for changes that time alone causes: expired leases, retention.
TICK_SECONDS = 0.1
#: Seconds by which the clock may be off, and is right.
_CLOCK_RIGHT_SECONDS = 1.0
_UPKEEP, _WAITING, _LEAVING = (Guard(place) for place in (Place.UPKEEP, Place.WAITING, Place.CONNECTION))
_ASKED_TOO_EARLY = r.Refused("bad_request", "ask for metrics by the last command of a request")


class QueueHost:
    """A `QueueState`, its journal, and the requests that wait. Used by one thread at a time."""

    #: The commands that the host answers itself: they concern the journal, the clock or the metrics.
    OWN_COMMANDS: Final = (c.Wake, c.Exposition, c.Backup, c.AcceptClock)

    def __init__(
        self,
        journal: Journal,
        *,
        clock: Clock | None = None,
        limits: Limits | None = None,
        observer: Observer | None = None,
        exposition: Callable[[r.Totals], Iterable[str]] | None = None,
        max_clock_jump: float = CLOCK_JUMP_MAX,
    ) -> None:
        """Recover the queue from *journal*; *exposition* renders the totals as text, in parts.

        Without a *clock* of its own the manager's is held if it is *max_clock_jump* seconds off.

        Raises:
            JournalError: a row cannot be read.
        """
        self.journal = journal
        self.observer = observer or Observer()
        self._limits = limits
        self._max_clock_jump = max_clock_jump
        self._may_set_clock = clock is None and max_clock_jump < math.inf
        #: Whether the clock is to be set once this turn is over: see `set_clock`.
        self.clock_accepted = False
        self._exposition = exposition or (lambda totals: ())
        self.recovered_jobs = 0
        self.recovery_seconds = 0.0
        #: Requests that are refused because they broke the state before.
        self.blamed = Blamed()
        #: Whether the state has been recovered in place. If so, a request that only reads is refused if it
        #: fails; it does not break the state again.
        self._careful = False
        self._begin_empty()
        #: How many turns have been committed.
        self._turns = 0
        self._next_tick = 0.0
        self._syncs = journal.durability == "fsync"
        self._failure: JournalError | None = None
        self._recover(clock)
        self._started_at = self.clock.now()

    def discard(self) -> None:
        """Replace the state by an empty one; all that was not committed or answered is lost."""
        self._begin_empty(self.state.refusals)

    def _begin_empty(self, refusals: frozenset[Refusal] = frozenset()) -> None:
        self.state = QueueState(
            incarnation=self.journal.incarnation,
            read=self._read,
            observer=self.observer,
            limits=self._limits,
        )
        self.state.refusals = refusals
        self._recent = Recent()
        self._waiters = Waiters(self.state, self._answer, careful=self._careful)
        self._outbox = Outbox()
        self._makers = Makers()
        self._surveys = Surveys(self.state)
        self._expositions = Expositions(self._exposition, self._totals_in_steps, self._answer)
        #: The owner's own requests that are not done; the first one is worked on.
        self._asked: deque[Request] = deque()

    def recover_in_place(self) -> None:
        """Begin a new incarnation of the journal, and recover the state from it after `discard`.

        Raises:
            JournalError: the journal cannot be written or read.
        """
        self.journal.begin_incarnation()
        self._careful = True
        self.discard()
        self._recover(self.clock)

    def set_clock(self) -> float:
        """Set the clock to the host's time of day, and recover the queue on that; return by how much.

        Nothing else may hold any of the old state, which is dropped: its deadlines are of another time.

        Raises:
            JournalError: the journal cannot be written or read.
        """
        now, leap = self.clock.now(), behind(self.clock)
        self.clock_accepted = False
        self.state.record(e.ClockSet(now + leap, now))
        self._commit()
        self.journal.begin_incarnation()
        self.discard()
        self._recover(ManagerClock())
        self.journal.note_time(self.clock.now())
        self._next_tick = 0.0
        self._started_at += leap
        return leap

    def call(self, commands: Sequence[c.Command], member: Member, deliver: Deliver) -> None:
        """Apply *commands*; a `turn` calls *deliver* with the replies, this turn's end at the earliest.

        Raises:
            StateBroken: the state cannot be trusted any more.
        """
        self.proceed(Request(commands, member, deliver))

    def ask(self, commands: Sequence[c.Command], deliver: Deliver) -> None:
        """Have *commands* of the host's owner applied, as `call` does, over as many turns as it takes."""
        self._asked.append(Request(commands, Member(), deliver))

    def proceed(self, request: Request, until: float = math.inf) -> bool:
        """Apply the remaining commands of a request, as `call` does; return whether all are applied.

        After *until* (by `time.perf_counter`), the rest waits for the next call of this method. Each call
        applies a few quick commands even if *until* has passed.

        Raises:
            StateBroken: the state cannot be trusted any more.
        """
        now = self.clock.now()
        commands, replies = request.commands, request.replies
        if len(commands) > 1 and not self._carry_out_earlier(request, until, now):
            return False
        last = commands[-1] if commands else None
        if last is not None:
            if type(last) is c.Stats and not self._surveys.prepare(request.room, now, until):
                return False
            reply = self._carry_out(last, request, now)
            if reply is None:
                self._park(last, request, now)
                return True
            replies.append(reply)
        self._outbox.put(last, replies, request.deliver, request.member, recorded=False)
        return True

    def _carry_out_earlier(self, request: Request, until: float, now: float) -> bool:
        """Apply the remaining commands except the last; return whether there is time for the last one now."""
        commands, replies = request.commands, request.replies
        begun, enough = len(replies), time.perf_counter() + UNTIMED_SECONDS
        for place in range(begun, len(commands) - 1):
            command = commands[place]
            if type(command) is c.Stats and not self._surveys.prepare(request.room, now, until):
                return False
            if isinstance(command, c.WAITERS):
                command = impatient(command)
            reply = self._carry_out(command, request, now)
            if reply is None or type(command) is c.Exposition:
                reply = _ASKED_TOO_EARLY
            replies.append(reply)
            charge(request.room, reply)
            at = time.perf_counter()
            if at >= until and (at >= enough or len(replies) - begun >= UNTIMED_COMMANDS):
                return False
        return True

    def _carry_out(self, command: c.Command, request: Request, now: float) -> r.Reply | None:
        """Apply one command of a request, and remember it if it made events."""
        apply_one = self._apply_with_care if self._careful else self._apply
        ledger, member = self.state.ledger, request.member
        before = ledger.last_sequence
        try:
            reply = apply_one(command, member, now, request.room)
        except Exception as error:
            if is_told(error):
                raise
            raise StateBroken(Place.REQUEST, error, command, member) from error
        if ledger.last_sequence != before:
            self._makers.append((before, command, member))
        return reply

    def _park(self, command: c.Command, request: Request, now: float) -> None:
        """Let a request wait because its last command, *command*, has no answer yet."""
        until = now + _patience(command)
        member, replies, room = request.member, request.replies, request.room
        waiting = Waiting(command, member, until, replies, request.deliver, self._turns, room.size)
        if isinstance(command, c.Exposition):
            self._expositions.ask(waiting)
        else:
            self._waiters.park(waiting, now)

    @property
    def passed_over(self) -> int:
        """How many steps the last replay skipped, because they contradict earlier ones."""
        return self.state.ledger.passed_over

    def totals(self, room: Room | None = None) -> r.Totals:
        """Return the counts of every queue, taken at once or before, in *room*; and what the host knows."""
        reply = self._apply(c.Stats(), Member(), self.clock.now(), room or Room())
        if not isinstance(reply, r.Totals):
            raise TypeError(f"stats answered {reply!r}")
        return reply

    def _totals_in_steps(self) -> Iterator[r.Totals | None]:
        return self._surveys.totals(self.clock.now(), self.totals)

    def roster(self) -> r.Roster:
        """Return the connected workers."""
        reply = self._apply(c.Members(), Member(), self.clock.now(), Room(math.inf, math.inf))
        if not isinstance(reply, r.Roster):
            raise TypeError(f"members answered {reply!r}")
        return reply

    def wake(self, member: Member) -> None:
        """Answer all waiting requests of *member* at once, with the jobs or outcomes that there are now."""
        with _WAITING:
            self._waiters.wake(member)

    def answer_reports(self) -> None:
        """Answer the requests that wait for jobs and that also reported outcomes; for an orderly end.

        The reports are recorded. Without an answer, their senders would have to keep them until there is a
        manager again.
        """
        with _WAITING:
            self._waiters.answer_reports()

    def disconnected(self, member: Member) -> None:
        """Forget the waiting requests of *member*, and take back the leases that it must not keep."""
        with _LEAVING:
            self._waiters.disconnect(member)
            self._expositions.forget(member)
            admission.disconnected(self.state, member, self.clock.now())

    def pause(self, seconds: float) -> None:
        """Extend all leases and timeouts by the last *seconds*, in which the manager read no messages."""
        with _UPKEEP:
            upkeep.pause(self.state, seconds, self.clock.now())

    def turn(self) -> list[Notice]:
        """Answer the waiting requests that can be answered, commit, deliver; return notices for the log.

        Raises:
            JournalError: the commit failed. Nothing of this turn was acknowledged. The caller must discard
                the host, and recover the queue from the journal.
            StateBroken: the state cannot be trusted any more. Nothing of this turn was acknowledged.
        """
        now = self.clock.now()
        if now >= self._next_tick or self._is_due(now):
            leap = settle(self.clock)
            if leap:
                self.pause(leap)
                now = self.clock.now()
            with _UPKEEP:
                upkeep.tick(self.state, now)
                self._waiters.expire(now)
            self._next_tick = now + TICK_SECONDS
        self._wake_ready(now)
        if self._asked and self.proceed(self._asked[0], time.perf_counter() + SLICE_SECONDS):
            self._asked.popleft()
        self._expositions.step()
        self._deliver_grants()
        self._commit()
        self._turns += 1
        self._outbox.deliver()
        notices, self.state.notices = self.state.notices, []
        return notices

    @property
    def has_to_sync(self) -> bool:
        """Whether the commit of this turn will wait for a disk."""
        return self._syncs and self.state.has_events

    def hand_out(self) -> None:
        """Deliver the early grants that need not wait for the end of the turn."""
        self._wake_ready(self.clock.now())
        self._outbox.hand_out()

    def _deliver_grants(self) -> None:
        if self._failure is None:  # after a failed commit, a grant would confirm that turn's reports
            self._outbox.deliver_grants()

    def seconds_to_next(self) -> float:
        """Return the seconds that the host may sleep if no request comes."""
        state = self.state
        if (
            self._outbox
            or self._expositions
            or self._asked
            or state.readied
            or state.progressed
            or self._waiters.due
        ):
            return 0.0
        now = self.clock.now()
        deadline = self.state.next_deadline()
        if not (self._waiters or self.state.workers or self.state.ledger.grown):
            # No worker is connected and no request waits: only due jobs and retention need a check.
            soon = now + 5.0
        else:
            soon = self._next_tick
        return max(0.0, min(soon, deadline or soon) - now)

    def waiting_lessees(self) -> int:
        """Return how many requests for jobs wait."""
        return self._waiters.lessees

    def close(self) -> None:
        """Commit the pending events, deliver the replies, and close the journal."""
        try:
            self._commit()
            self._deliver_grants()
            self._outbox.deliver()
        finally:
            self._outbox = Outbox()
            self.journal.close()

    def _apply_with_care(self, command: c.Command, member: Member, now: float, room: Room) -> r.Reply | None:
        """Apply a command.

        It is refused if a command like it has broken the state before, or if it only reads and fails.
        """
        refusal = self.blamed.refusal(command, inside=member.inside)
        if refusal is not None:
            return refusal
        try:
            return self._apply(command, member, now, room)
        except Exception as error:
            if is_told(error) or not only_reads(command):
                raise
            self.observer.counted("svc_manager_recoveries_total", Place.READING)
            return unread(error)

    def _apply(self, command: c.Command, member: Member, now: float, room: Room) -> r.Reply | None:
        if type(command) in self.OWN_COMMANDS:
            return self._answer_own(command, member)
        reply = apply(self.state, command, member, now, room)
        if isinstance(reply, r.Totals | r.Welcome):
            return completed(reply, self.journal, self.clock, now - self._started_at)
        return reply

    def _answer_own(self, command: c.Command, member: Member) -> r.Reply | None:
        match command:
            case c.Wake():
                self.wake(member)
                return r.Done()
            case c.Exposition():
                return self._expositions.answer(member)
            case c.Backup(name):
                return backup(self.journal, name)
        self.clock_accepted = self._may_set_clock and abs(behind(self.clock)) >= _CLOCK_RIGHT_SECONDS
        return r.Done(int(self.clock_accepted))

    def _recover(self, clock: Clock | None) -> None:
        started = time.perf_counter()
        ledger = self.state.ledger
        for sequence, event in self.journal.replay():
            replay(ledger, sequence, event)
        self.clock: Clock = clock or ManagerClock(
            ledger.last_at, expected=self.journal.expected_time(), jump_max=self._max_clock_jump
        )
        self.state.recover(self.clock.now())
        self.recovered_jobs = sum(chunk.unfinished for chunk in ledger.chunks.values())
        self.recovery_seconds = time.perf_counter() - started
        self.observer.measured("svc_journal_recovered_jobs", self.recovered_jobs)
        self.observer.measured("svc_journal_recovery_seconds", self.recovery_seconds)

    def _answer(self, waiting: Waiting, reply: r.Reply) -> None:
        waiting.replies.append(reply)
        recorded = waiting.turn < self._turns
        self._outbox.put(waiting.command, waiting.replies, waiting.deliver, waiting.member, recorded=recorded)

    def _wake_ready(self, now: float) -> None:
        state = self.state
        if not (state.readied or state.progressed or self._waiters.due):
            return
        with _WAITING:
            if state.readied:
                state.readied = False
                self._waiters.serve_lessees(now)
            if state.progressed:
                ended, state.progressed = state.progressed, []
                self._waiters.progress(ended, now)
        self._waiters.answer_due(now)

    def _is_due(self, now: float) -> bool:
        deadline = self.state.next_deadline()
        return deadline is not None and deadline <= now

    def _commit(self) -> None:
        events, forgotten = self.state.take_events()
        sizes, self.state.result_bytes = self.state.result_bytes, {}
        if self._failure is not None and self._outbox.tells:
            # The state holds changes of the failed turn that are not durable, so no reply may tell of them.
            self._outbox = Outbox()
            raise self._failure
        if not events and not forgotten:
            return
        started = time.perf_counter()
        try:
            self.journal.append(events, forgotten)
        except JournalError as error:
            self._outbox, self._failure = Outbox(), error
            raise
        except Exception as error:
            raise StateBroken(Place.COMMIT, error, *self._makers.of(events)) from error
        self._makers.clear()
        self.observer.committed(len(events), time.perf_counter() - started)
        for sequence, event in events:
            self._recent.committed(sequence, event, sizes.get(sequence))

    def _read(self, sequence: int) -> e.AnyEvent | None:
        event = self._recent.get(sequence)
        if event is None:
            event = self.journal.read(sequence)
            self.state.read_bytes += e.weight(event)
            self._recent.read(sequence, event)
        return event


def _patience(command: c.Command) -> float:
    return float(getattr(command, "wait", 0.0))
