"""The state of all queues: commands come in, replies and events go out.

Only `apply.apply(state, command, member, now)` and `upkeep.tick(state, now)` change it. It reads no clock and
does no I/O. The time comes in as an argument, journal rows come in through `read`, and the events that must
become durable go out through `take_events`. Recovery calls `replay.replay` for each event, then `recover`.

Tokens are in the order of the leases: each grant gets the next one. The upper part of a token is the
incarnation of the manager, so no token is ever given twice.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from operator import itemgetter

from svc.domain import events as e
from svc.domain.absentees import Absentees
from svc.domain.chunk import Chunk
from svc.domain.due import Schedule
from svc.domain.job import RESULTS_QUEUE
from svc.domain.known_tasks import KnownTasks
from svc.domain.leases import Leases
from svc.domain.ledger import Ledger
from svc.domain.lifecycle import JobState, Verb
from svc.domain.limits import TOKENS_PER_INCARNATION, Limits
from svc.domain.members import LeaseRecord, Member, Notice, Worker
from svc.domain.observer import Observer
from svc.domain.refusals import REFUSALS, Refusal
from svc.domain.returns import Returns
from svc.domain.roster import Watermark
from svc.domain.scheduling.lanes import Lanes
from svc.domain.scheduling.read_ahead import Imbalance
from svc.domain.scheduling.run_times import RunTimes
from svc.domain.scheduling.suspects import Suspects
from svc.errors import RowMissing

#: Scheduled jobs that one call makes ready, about, or a tenth of that if each has its own time: some ms.
WAKE_JOBS_MAX = 10_000
#: Seconds between two looks of `upkeep` at a state that it cannot wait for otherwise.
POLL_SECONDS = 0.1
#: Bytes up to which results share an event. To read one of these results, the whole event is read.
RESULTS_EVENT_BYTES = 1024 * 1024
#: The weight of a result and of a range of results beside their bytes: an event has at most 2,048 and 128.
RESULT_OVERHEAD_BYTES = RESULTS_EVENT_BYTES // 2048
RANGE_OVERHEAD_BYTES = RESULTS_EVENT_BYTES // 128

Read = Callable[[int], e.AnyEvent | None]
#: Jobs with progress that others may wait for: origin, first number, count.
Ended = tuple[str, int, int]


class QueueState:
    """The ledger of all jobs, the members that are connected, and the leases that they hold.

    New jobs come in by `admission`, results by `outcomes`, failures by `settlement` and members by
    `membership`. This class has the parts that they share: the ready lanes, leases and events.
    """

    def __init__(
        self,
        *,
        incarnation: int = 1,
        read: Read = lambda sequence: None,
        observer: Observer | None = None,
        limits: Limits | None = None,
    ) -> None:
        """Make an empty queue; *read* returns an event that is in the journal, or None."""
        self.limits = limits or Limits()
        self.observer = observer or Observer()
        self.incarnation = incarnation
        self.read = read
        #: Bytes of all events that `read` had to decode so far, because they were not in memory.
        self.read_bytes = 0
        self.ledger = Ledger(self.limits.window_bytes)
        self.lanes, self.run_times, self.scheduled = Lanes(), RunTimes(), Schedule()
        self.imbalance = Imbalance()
        self.leases = Leases()
        self.suspects = Suspects(self.leases, self.ledger.losses)
        #: The members that hold leases, and those of their leases that wait to be given back.
        self.holders: set[Member] = set()
        self.returns = Returns()
        #: When `upkeep` has work next at the latest, and when it looked last.
        self.upkeep_at = self.looked_at = 0.0
        #: When `upkeep` may look for holders whose leases no other rule ends, and whether it has to.
        self.next_sweep = 0.0
        self.sweep_due = True
        self.workers: dict[str, Worker] = {}
        self.consumers = 0
        self._known_tasks: KnownTasks | None = None
        #: Connections so far; `arrived` numbers them.
        self.arrivals = 0
        self.absentees = Absentees()
        #: Whether an event of the next commit has to be durable before any grant leaves.
        self.grants_wait = False
        #: Whether jobs became ready, and the jobs whose attempts ended, since the host last looked.
        self.readied = False
        self.progressed: list[Ended] = []
        #: The jobs with new partial results since then: origin and number.
        self.yielded: set[tuple[str, int]] = set()
        #: Workers with new orders since the host last looked; orders to stop since `stops` counted all.
        self.stopped: set[str] = set()
        self.orders = 0
        #: Members that came or went, for the host to log.
        self.notices: list[Notice] = []
        #: The reasons for which new jobs are refused now.
        self.refusals: frozenset[Refusal] = frozenset()
        #: The bytes that are free on the disk of the journal, as last seen.
        self.free_bytes = float("inf")
        self._events: list[tuple[int, e.AnyEvent]] = []
        #: Bytes of the results in the events of the next commit, by the number of the event.
        self.result_bytes: dict[int, int] = {}
        self._succeeded: tuple[int, e.Succeeded] | None = None
        self._results_weight = 0
        self._tokens = incarnation * TOKENS_PER_INCARNATION

    # --- new jobs -----------------------------------------------------------------------------------

    @property
    def refusal(self) -> Refusal | None:
        """The first reason for which new jobs are refused now; None if they are not."""
        return next((each for each in REFUSALS if each in self.refusals), None) if self.refusals else None

    def refuse(self, refusal: Refusal, *, on: bool) -> None:
        """Refuse new jobs for this reason, or stop refusing them for it."""
        self.refusals = self.refusals | {refusal} if on else self.refusals - {refusal}

    # --- events -------------------------------------------------------------------------------------

    def record(self, event: e.AnyEvent) -> int:
        """Put *event* into the next commit; return its sequence number."""
        self.ledger.last_sequence += 1
        self._events.append((self.ledger.last_sequence, event))
        return self.ledger.last_sequence

    def results_event(self, now: float, count: int, size: int) -> tuple[int, e.Succeeded]:
        """Return the event that takes *count* results of *size* bytes: the last of the commit, or a new one.

        It is a new one if the last one is full. It is also new after an event of another kind, because a
        replay must see the events in the order in which they happened.
        """
        weight = RANGE_OVERHEAD_BYTES + results_weight(count, size)
        self._results_weight += weight
        known = self._succeeded
        if (
            known is None
            or known[0] != self.ledger.last_sequence
            or self._results_weight > RESULTS_EVENT_BYTES
        ):
            event = e.Succeeded(now, [])
            known = self._succeeded = (self.record(event), event)
            self._results_weight = weight
            self.result_bytes[known[0]] = 0
        self.result_bytes[known[0]] += size
        return known

    @property
    def has_events(self) -> bool:
        """Whether the next commit has events to store."""
        return bool(self._events)

    def take_events(self) -> tuple[list[tuple[int, e.AnyEvent]], list[int]]:
        """Return the events that the next commit stores, and the rows that it deletes."""
        events, self._events = self._events, []
        self.grants_wait = False
        forgotten, self.ledger.forgotten = self.ledger.forgotten, []
        self._succeeded = None
        # An event may have been forgotten with its first jobs, and have taken more jobs since.
        return events, [sequence for sequence in forgotten if sequence not in self.ledger.references]

    def event(self, sequence: int) -> e.AnyEvent | None:
        """Return an event that is not yet committed or in the journal, or None."""
        events = self._events
        place = bisect_left(events, sequence, key=itemgetter(0))
        pending = place < len(events) and events[place][0] == sequence
        return events[place][1] if pending else self.read(sequence)

    # --- ready and scheduled ------------------------------------------------------------------------

    def make_ready(self, chunk: Chunk, start: int, stop: int, now: float) -> None:
        """Put jobs, whose state is READY already, into their lane."""
        self.push(chunk, start, stop, now)
        self.readied = True
        if chunk.terms.queue == RESULTS_QUEUE:
            self.progressed.append((chunk.origin, chunk.first + start, stop - start))

    def push(self, chunk: Chunk, start: int, stop: int, ready_at: float) -> None:
        """Put jobs into their lane; ready jobs that an absentee may hold stand in lanes of their own."""
        lanes = self.absentees.lanes if self._is_awaited(chunk) else self.lanes
        if chunk.suspects:
            self.suspects.push(lanes, chunk, start, stop, ready_at)
        else:
            lanes.push(chunk, start, stop, ready_at)

    def skip_ready(self, chunk: Chunk, start: int, stop: int) -> None:
        """Account for ready jobs that left their state, or will, other than by a grant."""
        lanes = self.absentees.lanes if self._is_awaited(chunk) else self.lanes
        self.suspects.skip(lanes, chunk, start, stop)

    def _is_awaited(self, chunk: Chunk) -> bool:
        """Return whether somebody who may hold jobs of *chunk* is still to come back after a restart."""
        return bool(self.absentees.kinds) and self.absentees.may_hold(chunk)

    def admit(self, chunk: Chunk, start: int, now: float) -> None:
        """Put the newly accepted jobs of *chunk*, from *start* on, into their lane or into the schedule."""
        if chunk.columns is None:
            self.make_ready(chunk, start, chunk.count, now)
            return
        for first, stop in list(chunk.runs(JobState.READY, start)):
            self.make_ready(chunk, first, stop, now)
        for first, stop in chunk.runs(JobState.SCHEDULED, start):
            self.scheduled.admit(chunk, first, stop)
        self.upkeep_at = min(self.upkeep_at, self.scheduled.next_at)

    def schedule(self, chunk: Chunk, start: int, stop: int, at: float) -> None:
        """Make jobs ready together at time *at*; their state is SCHEDULED already."""
        self.scheduled.add(chunk, start, stop, at)
        self.upkeep_at = min(self.upkeep_at, at)

    def wake_due(self, now: float) -> None:
        """Make due jobs ready; if they are many, the next call does the rest."""
        for chunk, start, stop, at in self.scheduled.take_due(now, WAKE_JOBS_MAX):
            self.ledger.move(chunk, start, stop, Verb.DUE)
            self.make_ready(chunk, start, stop, at)

    def needs_upkeep(self, now: float) -> bool:
        """Return whether `upkeep.tick` may have work: some is due, or too many finished jobs are kept."""
        if now >= self.upkeep_at:
            return True
        crowded = self.ledger.finished_jobs > self.limits.retention_jobs
        return crowded and now >= self.looked_at + POLL_SECONDS

    # --- leases -------------------------------------------------------------------------------------

    def grant_lease(
        self, chunk: Chunk, start: int, stop: int, member: Member, now: float, token: int = 0
    ) -> LeaseRecord:
        """Give *member* the jobs [start, stop), which have left their lane."""
        if not token:
            self._tokens += 1
            token = self._tokens
            if member.role != "plain":
                mark = self.ledger.roster.watermarks.get(chunk.terms.queue)
                if mark is None or chunk.sequence > mark.up_to:
                    mark = self._move_watermark(chunk, now)
                mark.grants += 1
        lease = member.leases[token] = LeaseRecord(token, chunk, start, stop, member, now, now)
        self.leases.add(lease)
        self.holders.add(member)
        self.ledger.move(chunk, start, stop, Verb.LEASE)
        return lease

    def _move_watermark(self, chunk: Chunk, now: float) -> Watermark:
        """Record that jobs of *chunk*, and of some chunks after it, may be granted."""
        ledger, queue = self.ledger, chunk.terms.queue
        up_to = chunk.sequence + ledger.roster.ahead(queue)
        sequence = self.record(e.WatermarkMoved(now, queue, up_to))
        ledger.forgotten += ledger.roster.move(queue, up_to, sequence)
        self.grants_wait = True
        return ledger.roster.watermarks[queue]

    def give_back(self, lease: LeaseRecord, start: int, stop: int, now: float) -> None:
        """Make jobs of a lease ready again at their old place; the caller adjusts or ends the lease."""
        if start < stop:
            # If an attempt at the first job was interrupted, the record of that has made it ready already.
            leased = start + (lease.chunk.state(start) is JobState.READY)
            if leased < stop:
                self.ledger.move(lease.chunk, leased, stop, Verb.RELEASE)
            self.make_ready(lease.chunk, start, stop, now)

    def settle_front(self, lease: LeaseRecord, stop: int) -> None:
        """Take the jobs before *stop* out of *lease*."""
        lease.start = stop
        if stop >= lease.stop:
            self.end_lease(lease)

    def end_lease(self, lease: LeaseRecord) -> None:
        """Forget a lease."""
        holder = lease.holder
        self.leases.remove(lease)
        holder.leases.pop(lease.token, None)
        if not holder.leases:
            self.holders.discard(holder)

    def pass_on(self, lease: LeaseRecord, heir: Member) -> None:
        """Move one lease to another member."""
        holder = lease.holder
        del holder.leases[lease.token]
        if not holder.leases:
            self.holders.discard(holder)
        lease.holder = heir
        heir.leases[lease.token] = lease
        self.holders.add(heir)

    def lease_of(self, token: int, member: Member) -> LeaseRecord | None:
        """Return the lease under *token* if *member* may report on it: its holder, or one of its worker.

        A member without a connection belongs to the owner of this state, and may report on any lease.
        """
        lease = self.leases.get(token)
        if lease is None or lease.holder is member or not member.order:
            return lease
        return lease if member.worker is not None and lease.holder.worker is member.worker else None

    # --- members ------------------------------------------------------------------------------------

    def arrived(self, member: Member) -> None:
        """Number *member*, a new connection."""
        self.arrivals += 1
        member.order = self.arrivals

    def ended(self, worker: Worker, consumer: str) -> None:
        """Note that a consumer's process has ended: messages from its older connections are out of date."""
        worker.note_ended(consumer, self.arrivals, self.workers.values())

    def dismiss(self, member: Member) -> None:
        """Remove a member that holds no lease from its worker, and the worker with its last member."""
        worker = member.worker
        if worker is None:
            return
        if worker.supervisor is member:
            worker.supervisor = None
        if worker.consumers.get(member.name) is member:
            del worker.consumers[member.name]
            if self.workers.get(worker.name) is worker:
                self.consumers -= 1  # a new count takes a second if thousands end together
        if not worker.consumers and worker.supervisor is None and self.workers.get(worker.name) is worker:
            del self.workers[worker.name]
            if worker.name not in self.absentees.names:
                self.strike(worker.name, worker.seen_at)
        member.worker = None
        self.sweep_due = True
        self.consumers_changed()

    def strike(self, worker: str, at: float) -> None:
        """Record that a worker, last heard of at time *at*, is on the roster no more, if it was."""
        if worker in self.ledger.roster.workers:
            sequence = self.record(e.Struck(at, worker))
            self.ledger.forgotten += [*self.ledger.roster.strike(worker), sequence]

    def count_consumers(self) -> None:
        """Count the consumers of all workers again."""
        self.consumers = sum(len(worker.consumers) for worker in self.workers.values())
        self.consumers_changed()

    def consumers_changed(self) -> None:
        """Note that a member came or went, or announced other queues or tasks."""
        self._known_tasks = None
        self.upkeep_at = 0.0

    @property
    def known_tasks(self) -> KnownTasks:
        """The tasks of each queue that the connected consumers know."""
        if self._known_tasks is None:
            workers = self.workers.values()
            self._known_tasks = KnownTasks(each for worker in workers for each in worker.consumers.values())
        return self._known_tasks

    def bodies(self, chunk: Chunk, start: int, stop: int) -> list[bytes]:
        """Return the bodies of jobs [start, stop), from the journal if they are not in memory."""
        return chunk.bodies(start, stop) or self._stored(chunk, start, stop)[0]

    def headers(self, chunk: Chunk, start: int, stop: int) -> list[bytes]:
        """Return the headers of jobs [start, stop), b"" for one without a header; [] if none has one."""
        columns = chunk.columns
        if columns is None or not columns.has_headers:
            return []
        return columns.headers(start, stop) or self._stored(chunk, start, stop)[1]

    def checkpoint(self, sequence: int) -> bytes:
        """Return the data of a checkpoint, which event *sequence* has."""
        event = self.event(sequence)
        if not isinstance(event, e.Checkpointed):
            raise RowMissing(f"event {sequence} is gone from the journal")  # it is a row, not a type
        return event.data

    def _stored(self, chunk: Chunk, start: int, stop: int) -> tuple[list[bytes], list[bytes]]:
        """Return the bodies and headers of jobs [start, stop) from the journal."""
        bodies: list[bytes] = []
        headers: list[bytes] = []
        while start + len(bodies) < stop:
            index = start + len(bodies)
            event = self._event_with_bodies(chunk.row_of(index))
            offset = chunk.first + index - event.first
            bodies += event.bodies[offset : offset + stop - index]
            found = event.headers[offset : offset + stop - index]
            headers += found or [b""] * (start + len(bodies) - index)
        return bodies, headers

    def _event_with_bodies(self, sequence: int) -> e.Submitted | e.Merged:
        event = self.event(sequence)
        if not isinstance(event, e.WITH_BODIES):
            raise RowMissing(f"event {sequence} is gone from the journal")  # it is a row, not a type
        return event


def results_weight(count: int, size: int) -> int:
    """Return the weight of *count* results of *size* bytes in an event."""
    return count * RESULT_OVERHEAD_BYTES + size
