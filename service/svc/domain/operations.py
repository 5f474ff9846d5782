"""The commands of operators and plain clients: cancel, requeue, drain, resume, and the `results` queue."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from itertools import islice

import msgspec

from svc.domain import commands as c
from svc.domain import enrolment, membership, replay, stops, suspicion
from svc.domain import events as e
from svc.domain import replies as r
from svc.domain.chunk import Chunk
from svc.domain.commands import CHANGED_JOBS_MAX
from svc.domain.handlers import handles
from svc.domain.job import ITEM, ITEM_CODEC, RESULTS_QUEUE, Outcome
from svc.domain.lifecycle import WAITING, JobState
from svc.domain.members import Member, Notice, Worker
from svc.domain.outcomes import outcome, take_and_forget
from svc.domain.queue_state import QueueState
from svc.domain.scheduling import kinds
from svc.domain.scheduling.grants import pill_for
from svc.domain.scheduling.lanes import Subscription

#: The kind of a plain client that takes results.
RESULTS: Subscription = (frozenset((RESULTS_QUEUE,)), None, None)
#: Dead jobs that one search for those of a queue passes at most: it takes some 10 ms.
DEAD_LOOKED_AT_MAX = 100_000
#: Workers that may have a drain of their own; a drain of all of them is always possible.
DRAINS_MAX = 10_000
_Place = tuple[Chunk, int]


@handles(c.Ping)
def ping(state: QueueState, command: c.Ping, member: Member, now: float) -> r.Reply:
    """Answer."""
    return r.Done()


@handles(c.Extend)
def extend(state: QueueState, command: c.Extend, member: Member, now: float) -> r.Reply | None:
    """Renew the leases of a worker's consumers; None if the member would wait for orders."""
    worker = member.worker
    if worker is None:
        if member.displaced is not None:
            member.displaced.heard_of_displaced(member, now)
        return r.Refused("bad_request", "say hello as a worker before extending leases")
    if state.suspects.trials:
        for consumer in worker.consumers.values():
            if consumer.connected:
                suspicion.reclaim(state, consumer)
    membership.heard_from(state, worker, now)
    worker.named_bytes = kinds.names_bytes(command.consumers or ())
    worker.report = command if _may_name(state, worker) else msgspec.structs.replace(command, consumers=None)
    if command.claims:
        membership.claim(state, worker, command.claims, now)
    if state.absentees:
        enrolment.look_for(state, worker)
    if not command.told:
        return r.Done(sum(len(each.leases) for each in worker.consumers.values()))
    waits = command.wait > 0 and command.stops_made == worker.stops_made and not worker.take_back
    return None if waits else _extended(state, member, worker)


def _may_name(state: QueueState, worker: Worker) -> bool:
    """Return whether the names of a worker's consumers are kept; if not, it counts as one that tells none."""
    if worker.named_bytes <= kinds.SMALL_BYTES:
        return True
    if sum(each.named_bytes for each in state.workers.values()) <= kinds.KINDS_BYTES:
        return True
    worker.named_bytes = 0
    return False


@handles(c.StopsAwaited)
def stops_awaited(state: QueueState, command: c.StopsAwaited, member: Member, now: float) -> r.Reply | None:
    """Answer a supervisor that has waited for orders."""
    if command.wait > 0:
        return None
    return r.Extended() if member.worker is None else _extended(state, member, member.worker)


def _extended(state: QueueState, member: Member, worker: Worker) -> r.Extended:
    consumers = worker.consumers.values()
    count = sum(len(each.leases) for each in consumers)
    orders = islice((stop for each in consumers if each.stops for stop in each.stops), stops.STOPS_TOLD)
    take_back, worker.take_back = worker.take_back, []
    return r.Extended(count, pill_for(state, member), list(orders), worker.stops_made, take_back)


@handles(c.Cancel)
def cancel(state: QueueState, command: c.Cancel, member: Member, now: float) -> r.Reply:
    """Cancel those of the jobs that are waiting and, if asked for, those that consumers have."""
    places = _places(state, command.ids)
    if isinstance(places, r.Refused):
        return places
    held = [place for place in places if place[0].state(place[1]) is JobState.LEASED]
    leases = stops.leases_at(state, held) if command.running and held else {}
    runs = stops.cut_runs(leases, now)
    for (chunk, index), lease in sorted(leases.items(), key=lambda each: -each[0][1]):
        # The last of a lease comes first: what is behind it goes back before it does.
        stops.end_attempt(state, lease, index, command.grace, now)
        state.observer.cancelled(chunk.terms, 1)
    waiting = [(chunk, index) for chunk, index in places if chunk.state(index) in WAITING]
    scheduled = sum(1 for chunk, index in waiting if chunk.state(index) is JobState.SCHEDULED)
    for chunk, index in waiting:
        if chunk.state(index) is JobState.READY:
            state.skip_ready(chunk, index, index + 1)
        state.observer.cancelled(chunk.terms, 1)
    for origin, numbers in _by_origin([*waiting, *leases]):
        event = e.JobsCancelled(now, origin, numbers, runs.get(origin, []))
        replay.cancelled(state.ledger, state.record(event), event)
        state.progressed.extend((origin, number, 1) for number in numbers)
    state.scheduled.cancelled(scheduled)
    return r.Done(len(waiting) + len(leases))


@handles(c.Requeue)
def requeue(state: QueueState, command: c.Requeue, member: Member, now: float) -> r.Reply:
    """Make dead jobs ready again; without ids, those that one search finds, the one that died first first."""
    more = None
    if command.ids:
        places = _places(state, command.ids)
        if isinstance(places, r.Refused):
            return places
    else:
        places, more = _dead(state, command.queue, max(0, command.passed))
    dead_places = [(chunk, index) for chunk, index in places if chunk.state(index) is JobState.DEAD]
    for origin, numbers in _by_origin(dead_places):
        event = e.Requeued(now, origin, numbers)
        for chunk, index in replay.requeued(state.ledger, state.record(event), event):
            chunk.note_gaps()
            state.make_ready(chunk, index, index + 1, now)
            state.observer.requeued(chunk.terms, 1)
    return r.Done(len(dead_places), more)


def _dead(state: QueueState, queue: str, passed: int) -> tuple[list[_Place], int | None]:
    """Return dead jobs of *queue*, or of all queues, in the order of their death, after *passed* dead jobs.

    The second value is the number of dead jobs to pass in the next search, or None if there are no others.
    """
    places: list[_Place] = []
    dead = islice(state.ledger.dead.items(), passed, passed + DEAD_LOOKED_AT_MAX)
    looked = 0
    for (_, index), chunk in dead:
        if len(places) >= CHANGED_JOBS_MAX:
            break
        looked += 1
        if queue in ("", chunk.terms.queue):
            places.append((chunk, index))
    end = passed + looked >= len(state.ledger.dead)
    return places, None if end else passed + looked - len(places)


@handles(c.Drain)
def drain(state: QueueState, command: c.Drain, member: Member, now: float) -> r.Reply:
    """Put a drain in force and answer with its epoch; if it is in force already, change nothing."""
    drains = state.ledger.drains
    known = drains.in_force.get(command.worker)
    if known is not None and (not command.refuse or command.worker in drains.refusing):
        return r.Done(known[0])
    if len(drains.in_force) >= DRAINS_MAX and command.worker:
        return r.Refused("bad_request", f"{DRAINS_MAX} workers drain already; resume some, or drain all")
    event = e.Drained(now, drains.epoch + 1, command.worker, command.refuse)
    replay.drained(state.ledger, state.record(event), event)
    state.notices.append(Notice("drained", command.worker))
    state.readied = True
    return r.Done(event.epoch)


@handles(c.Resume)
def resume(state: QueueState, command: c.Resume, member: Member, now: float) -> r.Reply:
    """End a drain; the answer is the number of drains that were in force."""
    drains = state.ledger.drains.in_force
    count = len(drains) if not command.worker else int(command.worker in drains)
    if count:
        event = e.Resumed(now, command.worker)
        replay.resumed(state.ledger, state.record(event), event)
        state.notices.append(Notice("resumed", command.worker))
        state.readied = True
    return r.Done(count)


@handles(c.Take)
def take(state: QueueState, command: c.Take, member: Member, now: float) -> r.Reply | None:
    """Hand out the oldest entry of `results`, for good: the outcome of a job, or data that was put there."""
    lane = state.lanes.best(RESULTS)
    head = lane.head() if lane is not None else None
    answer = next(iter(state.ledger.answers.items()), None)
    if lane is not None and head is not None and (answer is None or head.order < answer[1][1]):
        name, body = take_and_forget(state, lane, now)
        return r.Outcomes(0, [Outcome(name, JobState.SUCCEEDED, body, codec=ITEM_CODEC, task=ITEM)])
    if answer is not None:
        return _hand_out(state, answer[1][0], answer[0][1])
    return None if command.wait > 0 else r.Outcomes(0, [])


def _hand_out(state: QueueState, chunk: Chunk, index: int) -> r.Reply:
    found = outcome(state, chunk, index)
    event = e.Answered(chunk.origin, [chunk.first + index])
    replay.answered(state.ledger, state.record(event), event)
    return r.Outcomes(0, [found])


@handles(c.Join)
def join(state: QueueState, command: c.Join, member: Member, now: float) -> r.Reply | None:
    """Answer once no job of a queue is waiting or leased."""
    counts = state.ledger.counts.get(command.queue)
    if counts is None or not counts.unfinished:
        return r.Done()
    return None


def _places(state: QueueState, ids: Collection[str]) -> list[_Place] | r.Refused:
    """Return the place of each job, once even if it is named several times."""
    if len(ids) > CHANGED_JOBS_MAX:
        return r.Refused("bad_request", f"name at most {CHANGED_JOBS_MAX} jobs at a time")
    places: dict[_Place, None] = {}
    for job in ids:
        try:
            place = state.ledger.find(job)
        except ValueError as error:
            return r.Refused("unknown_job", str(error))
        if place is None:
            return r.Refused("unknown_job", f"there is no job {job}, or its retention time has passed")
        places[place] = None
    return list(places)


def _by_origin(places: Iterable[_Place]) -> Iterator[tuple[str, list[int]]]:
    numbers: defaultdict[str, list[int]] = defaultdict(list)
    for chunk, index in places:
        numbers[chunk.origin].append(chunk.first + index)
    yield from numbers.items()
