"""Workers on the roster, and their return after a restart of the manager."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from svc.domain import events as e
from svc.domain import replay
from svc.domain.field_bounds import TASKS_MAX
from svc.domain.lifecycle import JobState
from svc.domain.members import Member, Worker
from svc.domain.names import QUEUES_MAX
from svc.domain.queue_state import QueueState
from svc.domain.replay import end_replay
from svc.domain.scheduling.kinds import union
from svc.domain.scheduling.lanes import Lane, Subscription


def recover(state: QueueState, now: float) -> None:
    """Make jobs ready that the replayed events left waiting, and give their holders time to return."""
    ledger, last = state.ledger, state.ledger.last_sequence
    end_replay(ledger, now)
    unfinished = [chunk for chunk in ledger.chunks.values() if chunk.unfinished]
    state.absentees.expect(ledger.roster, unfinished, last, now + state.limits.reconnect_seconds)
    if not ledger.roster.begun:
        begun = e.RosterBegun(now)
        replay.roster_begun(ledger, state.record(begun), begun)
    ready = [(chunk, *run) for chunk in unfinished for run in chunk.runs(JobState.READY)]
    for chunk, start, stop in sorted(ready, key=lambda each: each[0].sequence_of(each[1])):
        state.push(chunk, start, stop, chunk.at_of(start))
    for chunk in unfinished:
        for start, stop in chunk.runs(JobState.SCHEDULED):
            state.scheduled.restore(chunk, start, stop)
    # A job that was leased when the manager stopped may be due long ago: its holder may ask for it now.
    state.wake_due(now)
    state.readied = True
    state.upkeep_at = 0.0


def enrol(state: QueueState, member: Member, now: float) -> None:
    """Put the worker of a consumer on the roster, before the consumer gets jobs."""
    worker, roster = member.worker, state.ledger.roster
    if worker is None or roster.knows(worker.name, member.subscription):
        return
    known, kind = roster.workers.get(worker.name), member.subscription
    queues, tasks, codecs = kind if known is None else _both(state, known.subscription, kind)
    event = e.Enrolled(now, worker.name, sorted(queues), _sorted(tasks), _sorted(codecs))
    replay.enrolled(state.ledger, state.record(event), event)
    state.grants_wait = True


def _both(state: QueueState, known: Subscription, kind: Subscription) -> Subscription:
    """Return what covers both kinds; if that are too many names, what takes all tasks."""
    both = union(known, kind)
    queues, tasks, _ = both
    few = len(queues) <= 2 * QUEUES_MAX and len(tasks or ()) <= 2 * TASKS_MAX
    if few and state.ledger.roster.kinds.has_room(both, kinds_in_use(state)):
        return both
    return kind[0], None, None


def kinds_in_use(state: QueueState) -> Iterator[Subscription]:
    """Yield the kinds of the connected members and of the enrolled workers."""
    for worker in state.workers.values():
        yield from (member.subscription for member in worker.consumers.values())
        if worker.supervisor is not None:
            yield worker.supervisor.subscription
    yield from (each.subscription for each in state.ledger.roster.workers.values())


def look_for(state: QueueState, worker: Worker) -> None:
    """Hand out the jobs that waited for *worker*, if it is back.

    Its supervisor has renewed, which comes after all its reports of dead consumers, and each consumer that it
    named has said hello, with the leases that it holds, or has ended.
    """
    named = worker.report.consumers
    if worker.name not in state.absentees.names or named is None or worker.supervisor is None:
        return
    if all(name in worker.ended or _has_come_back(worker, name) for name in named):
        _release(state, state.absentees.returned(worker.name))


def _has_come_back(worker: Worker, name: str) -> bool:
    member = worker.consumers.get(name)
    return member is not None and not member.claimed


def said_goodbye(state: QueueState, worker: Worker) -> None:
    """Note that the supervisor of *worker* leaves: no consumer of it holds a job."""
    if worker.name in state.absentees.names:
        _release(state, state.absentees.returned(worker.name))


def give_up(state: QueueState, now: float) -> None:
    """Hand out the jobs of all workers that have not come back in time."""
    for name in state.absentees.names.keys() - state.workers.keys():
        state.strike(name, now)
    _release(state, state.absentees.give_up())


def _release(state: QueueState, lanes: Iterable[Lane]) -> None:
    for lane in lanes:
        state.absentees.lanes.move(lane, state.lanes)
    state.readied = True


def _sorted(names: frozenset[str] | None) -> list[str] | None:
    return None if names is None else sorted(names)
