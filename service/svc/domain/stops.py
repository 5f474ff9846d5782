"""Cancelled jobs that consumers still run: their leases end, and their supervisors hear of it.

A cancel is durable, so it is on record that the job is cancelled, whatever becomes of the attempt: a later
result finds no lease. The orders to end the attempts are not durable. A consumer that reconnects to a
restarted manager names its leases, and that makes the orders anew.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Mapping

from svc.domain.chunk import Chunk
from svc.domain.events import CutRun
from svc.domain.lifecycle import JobState
from svc.domain.limits import CANCEL_GRACE_SECONDS
from svc.domain.members import LeaseRecord, Member
from svc.domain.queue_state import QueueState
from svc.domain.replies import Stop

#: The attempts of one member that its supervisor is told to end: the last ones, if there are more.
STOPS_MAX = 1024
#: Those of all members of a worker that one answer names; the others follow when these have ended.
STOPS_TOLD = 4096
#: Those of all members together, beyond which each keeps only its last few; each takes some 100 bytes.
ALL_STOPS_MAX = 256 * 1024
FEW_STOPS = 16
#: Orders between two looks at all members.
ORDERS_UNSEEN = 16 * 1024
Place = tuple[Chunk, int]


def leases_at(state: QueueState, places: Collection[Place]) -> dict[Place, LeaseRecord]:
    """Return the lease of each place whose holder can be told to stop, or has gone.

    A plain client cannot: it has the job until it says `task_done`.
    """
    wanted: dict[Chunk, list[int]] = {}
    for chunk, index in sorted(places, key=lambda place: place[1]):
        wanted.setdefault(chunk, []).append(index)
    found: dict[Place, LeaseRecord] = {}
    for chunk, indexes in wanted.items():
        for lease in state.leases.of(chunk):
            if lease.holder.role == "plain":
                continue
            for index in indexes[bisect_left(indexes, lease.start) : bisect_left(indexes, lease.stop)]:
                found[chunk, index] = lease
    return found


def cut_runs(leases: Mapping[Place, LeaseRecord], now: float) -> dict[str, list[CutRun]]:
    """Return the attempts at those leased jobs that are not read ahead, by origin, in order of the jobs."""
    runs: dict[str, list[CutRun]] = {}
    for (chunk, index), lease in sorted(leases.items(), key=lambda each: each[0][0].first + each[0][1]):
        if index == lease.start and not lease.behind:
            holder = lease.holder
            run = CutRun(chunk.first + index, now - lease.since, holder.name, holder.code)
            runs.setdefault(chunk.origin, []).append(run)
    return runs


def end_attempt(state: QueueState, lease: LeaseRecord, index: int, grace: float, now: float) -> None:
    """Take the job at *index* out of its lease, and order the end of its attempt; the caller cancels it.

    Jobs that were read ahead behind it go back: their consumer is replaced.
    """
    chunk = lease.chunk
    if index + 1 < lease.stop:
        state.observer.released(chunk.terms, lease.stop - index - 1)
        state.give_back(lease, index + 1, lease.stop, now)
    holder = lease.holder
    lease.stop = index
    if lease.start >= lease.stop:
        state.end_lease(lease)
    _order(state, holder, Stop(holder.name, lease.token, chunk.first + index, grace))


def _order(state: QueueState, member: Member, stop: Stop) -> None:
    """Have the supervisor of *member* told to end an attempt."""
    member.stops.append(stop)
    if member.worker is not None:
        member.worker.stops_made += 1
        state.stopped.add(member.worker.name)
    state.orders += 1
    if state.orders >= ORDERS_UNSEEN:
        state.orders = 0
        _bound_all(state)


def _bound_all(state: QueueState) -> None:
    """Keep the last orders for each member if there are very many together.

    Attempts that nobody is told to end go on, and their results are refused.
    """
    if _kept(state) > ALL_STOPS_MAX:
        for worker in state.workers.values():
            for member in worker.consumers.values():
                del member.stops[:-FEW_STOPS]


def _kept(state: QueueState) -> int:
    return sum(len(each.stops) for worker in state.workers.values() for each in worker.consumers.values())


def after_restart(state: QueueState, chunk: Chunk, start: int, stop: int, token: int, member: Member) -> int:
    """Find the first cancelled job in [start, stop), which *member* may still run; return the end before it.

    It is ordered to stop; the jobs behind it are ready again.
    """
    for first, _ in chunk.runs(JobState.CANCELLED, start, min(stop, chunk.count)):
        _order(state, member, Stop(member.name, token, chunk.first + first, CANCEL_GRACE_SECONDS))
        return first
    return stop


def bound(state: QueueState, member: Member) -> None:
    """Keep the last orders for *member*, each once: who names its leases again gets the same ones again.

    If there are very many for all members together, only a few of them.
    """
    most = STOPS_MAX if _kept(state) <= ALL_STOPS_MAX else FEW_STOPS
    member.stops = list(dict.fromkeys(member.stops))[-most:]
