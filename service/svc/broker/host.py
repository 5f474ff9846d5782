"""The queue with its journal, which both the manager's loop and the in-process broker run.

A *turn* applies requests as they come (`call`). Then `turn` answers the requests that wait (`serve`), commits
all events at once, and delivers the replies (`end_turn`); only early grants leave before the commit.

An exception inside the queue is raised as `broker.broken.StateBroken`. The caller must then discard the state
and recover it from the journal.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, TypeVar

from svc.broker.broken import Place, StateBroken, guarded, only_reads, passes_through, refused_reading
from svc.broker.clock import CLOCK_JUMP_MAX, ManagerClock
from svc.broker.commit import ReplyOutbox
from svc.broker.durable_state import DurableState
from svc.broker.expositions import Expositions
from svc.broker.journal import Journal
from svc.broker.outputs import MemoryOutputs, OutputKeeper, OutputStore
from svc.broker.parked import Waiting
from svc.broker.requests import INDEX_SECONDS, Deliver, Request, impatient, lacks_index, patient
from svc.broker.surveys import Surveys
from svc.broker.waiting import Waiters
from svc.domain import commands as c
from svc.domain import membership, upkeep
from svc.domain import replies as r
from svc.domain.apply import apply, charge
from svc.domain.handlers import Room
from svc.domain.limits import Limits
from svc.domain.members import Member, Notice
from svc.domain.observer import Observer
from svc.domain.queries import connected
from svc.domain.refusals import Refusal

#: Seconds between two checks for changes that time alone causes: expired leases, retention.
TICK_SECONDS = 0.1
#: Commands of a request that are applied before the time is checked; most requests have fewer.
UNTIMED_COMMANDS = 4
#: Seconds after which the time is checked nevertheless: a single submit of many chunks takes longer.
UNTIMED_SECONDS = 0.002
#: Seconds in one turn for the requests of the host's owner.
OWNER_SECONDS = 0.005
_ASKED_TOO_EARLY = r.Refused("bad_request", "ask for metrics by the last command of a request")

R = TypeVar("R", bound=r.Reply)


class QueueHost(DurableState):
    """A durable state, and the requests to it. Used by one thread at a time."""

    #: The commands that the host answers itself: they concern the journal, the clock or the metrics.
    OWN_COMMANDS: Final = frozenset(
        (c.Wake, c.Exposition, c.Backup, c.AcceptClock, c.HandOver, c.Output, c.Logs)
    )
    #: These, and the commands to whose replies it adds its own facts.
    _HOST_COMMANDS: Final = OWN_COMMANDS | {c.Hello, c.Stats, c.Ping}

    def __init__(
        self,
        journal: Journal,
        *,
        clock: ManagerClock | None = None,
        limits: Limits | None = None,
        observer: Observer | None = None,
        exposition: Callable[[r.Totals], Iterable[str]] | None = None,
        max_clock_jump: float = CLOCK_JUMP_MAX,
        outputs: OutputStore | None = None,
    ) -> None:
        """Recover the queue from *journal*; *exposition* renders the totals as text, in parts.

        *outputs* keeps the output of attempts; if there is none, it is kept in memory.
        Without a *clock* of its own the manager's is held if it is *max_clock_jump* seconds off.

        Raises:
            JournalError: a row cannot be read.
        """
        self._exposition = exposition or (lambda totals: ())
        self.outputs = OutputKeeper(outputs or MemoryOutputs(), observer or Observer())
        self._syncs = journal.durability == "fsync"
        super().__init__(journal, clock, limits, observer, max_clock_jump)

    def _begin_empty(self, refusals: frozenset[Refusal] = frozenset()) -> None:
        super()._begin_empty(refusals)
        self._next_tick = 0.0
        self._waiters = Waiters(self.state, self._answer, careful=self.careful)
        self._surveys = Surveys(self.state)
        self._expositions = Expositions(self._exposition, self._totals_in_steps, self._answer)
        #: The owner's own requests that are not done; the first one is worked on.
        self._asked: deque[Request] = deque()

    # --- requests -----------------------------------------------------------------------------------

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
        if commands:
            last = commands[-1]
            if type(last) is c.Stats and not self._surveys.prepare(request.room, now, until):
                return False
            if type(last) is c.Lease and last.running:
                self._waiters.supersede(request.member)
            reply = self._carry_out(last, request, now)
            if self.state.lanes.unfinished and lacks_index(self.state.lanes, last, request.member, reply):
                last, reply = patient(last), None
            if reply is None:
                self._park(last, request, now)
                return True
            replies.append(reply)
        self.commits.outbox.put(request, recorded=False)
        return True

    def _carry_out_earlier(self, request: Request, until: float, now: float) -> bool:
        """Apply the remaining commands except the last; return whether there is time for the last one now."""
        replies, room = request.replies, request.room
        begun, enough = len(replies), time.perf_counter() + UNTIMED_SECONDS
        for each in request.commands[begun:-1]:
            command = impatient(each) if type(each) in c.WAITERS else each
            if type(command) is c.Stats and not self._surveys.prepare(room, now, until):
                return False
            reply = self._carry_out(command, request, now)
            if reply is None or type(command) is c.Exposition:
                reply = _ASKED_TOO_EARLY
            replies.append(reply)
            if type(reply) is r.Grant:
                charge(room, reply)
            at = time.perf_counter()
            if at >= until and (at >= enough or len(replies) - begun >= UNTIMED_COMMANDS):
                return False
        return True

    def _carry_out(self, command: c.Command, request: Request, now: float) -> r.Reply | None:
        """Apply one command of a request, and remember it if it made events."""
        ledger, member = self.state.ledger, request.member
        before = ledger.last_sequence
        try:
            if self.careful:
                reply = self._apply_with_care(command, member, now, request.room)
            elif type(command) in self._HOST_COMMANDS:
                reply = self._apply(command, member, now, request.room)
            else:
                reply = apply(self.state, command, member, now, request.room)
        except Exception as error:
            if passes_through(error):
                raise
            raise StateBroken(Place.REQUEST, error, command, member) from error
        if ledger.last_sequence != before:
            self.commits.causes.append((before, command, member))
        return reply

    def _apply_with_care(self, command: c.Command, member: Member, now: float, room: Room) -> r.Reply | None:
        """Apply a command.

        It is refused if a command like it has broken the state before, or if it only reads and fails.
        """
        refusal = self.blocklist.refusal(command, inside=member.inside)
        if refusal is not None:
            return refusal
        try:
            return self._apply(command, member, now, room)
        except Exception as error:
            if passes_through(error) or not only_reads(command):
                raise
            self.observer.counted("svc_manager_recoveries_total", Place.READING)
            return refused_reading(error)

    def _apply(self, command: c.Command, member: Member, now: float, room: Room) -> r.Reply | None:
        if type(command) in self.OWN_COMMANDS:
            return self._answer_own(command, member, room)
        reply = apply(self.state, command, member, now, room)
        return self.completed(reply) if isinstance(reply, r.Totals | r.Welcome) else reply

    def _answer_own(self, command: c.Command, member: Member, room: Room) -> r.Reply | None:
        match command:
            case c.Wake():
                self.wake(member)
                return r.Done()
            case c.Backup(name):
                return self.backup(name)
            case c.AcceptClock():
                return r.Done(int(self.accept_clock()))
            case c.HandOver():
                return self.hand_over()
            case c.Output():
                return self.outputs.take(command, scarce=bool(self.state.refusals))
            case c.Logs():
                return self.outputs.answer(command, self.state, room)
        return self._expositions.answer(member)

    def _park(self, command: c.Command, request: Request, now: float) -> None:
        """Let a request wait because its last command, *command*, has no answer yet."""
        request.commands = (command,)  # the others are done, and may be large
        waiting = Waiting(request, now + float(getattr(command, "wait", 0.0)), self.commits.turns)
        if isinstance(command, c.Exposition):
            self._expositions.waiting.append(waiting)
        else:
            self._waiters.park(waiting, now)

    def _answer(self, waiting: Waiting, reply: r.Reply) -> None:
        waiting.request.replies.append(reply)
        self.commits.outbox.put(waiting.request, recorded=waiting.turn < self.commits.recorded_turns)

    # --- the owner's questions ----------------------------------------------------------------------

    def totals(self, room: Room | None = None) -> r.Totals:
        """Return the counts of every queue, taken at once or before, in *room*; and the host's own facts."""
        return self._own_answer(c.Stats(), r.Totals, room or Room())

    def workers(self) -> list[r.WorkerView] | None:
        """Return the connected workers, without what they serve; None while earlier ones are expected."""
        return None if self.state.absentees else connected(self.state, self.clock.now())

    def _own_answer(self, command: c.Command, kind: type[R], room: Room) -> R:
        reply = self._apply(command, Member(), self.clock.now(), room)
        if isinstance(reply, kind):
            return reply
        raise TypeError(f"{command!r} was answered by {reply!r}")

    def _totals_in_steps(self) -> Iterator[r.Totals | None]:
        return self._surveys.totals(self.clock.now(), self.totals)

    # --- members ------------------------------------------------------------------------------------

    @guarded(Place.CONNECTION)
    def disconnected(self, member: Member) -> None:
        """Forget the waiting requests of *member*, and take back the leases that it must not keep."""
        self._waiters.disconnect(member)
        self._expositions.forget(member)
        membership.disconnected(self.state, member, self.clock.now())

    @guarded(Place.WAITING)
    def wake(self, member: Member) -> None:
        """Answer all waiting requests of *member* at once, with the jobs or outcomes that there are now."""
        self._waiters.wake(member)

    @guarded(Place.WAITING)
    def answer_reports(self) -> None:
        """Answer the requests that wait for jobs and that also reported outcomes; for an orderly end.

        The reports are recorded; without an answer, their senders would keep them for the next manager.
        """
        self._waiters.answer_reports()

    @guarded(Place.UPKEEP)
    def pause(self, seconds: float) -> None:
        """Extend all leases and timeouts by the last *seconds*, in which the manager read no messages."""
        upkeep.pause(self.state, seconds, self.clock.now())

    # --- turns --------------------------------------------------------------------------------------

    def turn(self) -> list[Notice]:
        """Answer the waiting requests that can be answered, commit, deliver; return notices for the log.

        Raises:
            JournalError: the commit failed. Discard the host, and recover the queue from the journal.
            StateBroken: the state cannot be trusted any more. Nothing of this turn was acknowledged either.
        """
        self.serve()
        self.go_on()
        return self.end_turn()

    def serve(self) -> None:
        """Do the work that is due, and answer waiting requests, as many as fit into one answer."""
        now = self.clock.now()
        if now >= self._next_tick or now >= self.state.upkeep_at:
            now = self._keep_time(now)
        if self.state.lanes.go_on() | self.state.suspects.lanes.go_on():
            self.state.readied = True
            self.state.progressed.append(("", 0, 0))  # `Take` waits for the end of a job, or for a lane
        self._wake_ready()
        if self._waiters.pending(now):
            self._waiters.answer_due(now)

    def go_on(self, until: float = math.inf) -> None:
        """Go on with the requests of the owner and with the text of the metrics for a few milliseconds."""
        if self._asked and self.proceed(self._asked[0], min(until, time.perf_counter() + OWNER_SECONDS)):
            self._asked.popleft()
        if self._expositions.waiting:
            self._expositions.step()

    def end_turn(self) -> list[Notice]:
        """Commit the turn and deliver its replies, as soon as they are durable; return notices for the log.

        Raises:
            JournalError, StateBroken: see `turn`.
        """
        self._wake_ready()
        self.commits.settle()
        self.commits.commit()
        self._waiters.end_turn()
        notices, self.state.notices = self.state.notices, []
        return notices

    def _keep_time(self, now: float) -> float:
        """Do the work that time alone makes due; return the time, which a held clock may leap."""
        if self.clock.held and (leap := self.clock.settle()):
            self.pause(leap)
            now = self.clock.now()
        try:
            if self.state.needs_upkeep(now):
                upkeep.tick(self.state, now)
            self._waiters.expire(now)
        except Exception as error:
            if passes_through(error):
                raise
            raise StateBroken(Place.UPKEEP, error) from error
        self._next_tick = now if now >= self._waiters.expiries.soonest else now + TICK_SECONDS
        return now

    @property
    def has_to_sync(self) -> bool:
        """Whether the commit of this turn will wait for a disk."""
        return self._syncs and self.state.has_events

    def hand_out(self) -> None:
        """Deliver the early grants that need not wait for the end of the turn."""
        self._wake_ready()
        if not self.commits.grants_wait:
            self.commits.outbox.hand_out()

    def _wake_ready(self) -> None:
        """Hand out jobs that became ready, and find the waiting requests that attempts' ends make due."""
        state = self.state
        if state.stopped:
            self._waiters.wake_supervisors()
        if not (state.readied or state.progressed or state.yielded):
            return
        now = self.clock.now()
        try:
            if state.readied:
                state.readied = False
                self._waiters.serve_lessees(now)
            if state.progressed:
                ended, state.progressed = state.progressed, []
                self._waiters.progress(ended, now)
            if state.yielded:
                jobs, state.yielded = state.yielded, set()
                self._waiters.wake_readers(jobs)
        except Exception as error:
            if passes_through(error):
                raise
            raise StateBroken(Place.WAITING, error) from error

    @property
    def has_own_work(self) -> bool:
        """Whether `go_on` has something to do."""
        return bool(self._asked or self._expositions.waiting)

    def seconds_to_next(self) -> float:
        """Return the seconds that the host may sleep if no request comes."""
        state, now = self.state, self.clock.now()
        some = state.readied or state.progressed or state.yielded or self.has_own_work
        if some or self.commits.outbox.undelivered or self._waiters.pending(now):
            return 0.0
        if state.lanes.unfinished or state.suspects.lanes.unfinished:
            return INDEX_SECONDS
        # If no worker is connected and no request waits, only due jobs and retention need a check.
        busy = self._waiters.all or state.workers or state.ledger.grown
        soon = min(self._next_tick if busy else now + 5.0, self._waiters.soonest)
        return max(0.0, min(soon, state.upkeep_at) - now)

    def maintain_journal(self, *, idle: bool) -> bool:
        """Have the journal do work that commits have postponed; return whether there is more."""
        return self.journal.maintain(idle=idle)

    def close(self) -> None:
        """Commit the pending events, deliver the replies, and close the journal."""
        try:
            self.commits.commit()
            self.settle()
        finally:
            self.commits.outbox = ReplyOutbox()
            self.journal.close()
            self.outputs.close()
