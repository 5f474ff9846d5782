"""Attempts that end without a result: nack, release, and a supervisor's reports about a dead consumer.

A lease is settled from the front. Its holder reports, or another member of the same worker, and names the
token. A report with a token that is no longer in force changes nothing. If it repeats a report that was
recorded, it gets the same answer again.
"""

from __future__ import annotations

from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain import suspicion
from svc.domain.charges import charge, interrupt, return_jobs
from svc.domain.handlers import handles
from svc.domain.job import Cause
from svc.domain.job_records import NO_RECORD
from svc.domain.members import LeaseRecord, Member
from svc.domain.outcomes import DONE, LEASE_LOST, late
from svc.domain.queue_state import QueueState
from svc.domain.retry import crash_retry_in


@handles(c.Nack)
def nack(state: QueueState, command: c.Nack, member: Member, now: float) -> r.Reply:
    """Charge the attempt at one job; jobs before it in the lease, whose results never came, go back."""
    lease = state.lease_of(command.token, member)
    index = -1 if lease is None else command.number - lease.chunk.first
    if lease is None or not lease.start <= index < lease.stop:
        suspicion.came_back(state, command.token, member, now)
        return late(state, command.token, command.number, 1, failed=True)
    state.give_back(lease, lease.start, index, now)
    lease.start = index
    cause, retry_in, seconds = command.cause, command.retry_in, command.seconds
    charge(state, lease, cause, command.error, retry_in, seconds, now, token=lease.token)
    lease.since = now
    return DONE


@handles(c.Release)
def release(state: QueueState, command: c.Release, member: Member, now: float) -> r.Reply:
    """Give jobs of a lease back, uncharged."""
    lease = state.lease_of(command.token, member)
    if lease is None:
        return LEASE_LOST
    start = max(lease.start, command.first - lease.chunk.first)
    if start < lease.stop:
        _give_back_from(state, lease, start, now, command)
    return DONE


@handles(c.Recall)
def recall(state: QueueState, command: c.Recall, member: Member, now: float) -> r.Reply:
    """Give back the jobs that a consumer read ahead, as far as its supervisor knew of them."""
    holder = _consumer(member, command.consumer)
    if holder is None:
        return r.Done(0)
    count = 0
    for token in [token for token in holder.leases if command.token <= token <= command.last]:
        lease = holder.leases[token]
        start = lease.start
        if token == command.token:
            start = max(start, command.number + 1 - lease.chunk.first)
        if start < lease.stop:
            count += lease.stop - start
            _give_back_from(state, lease, start, now)
    return r.Done(count)


@handles(c.Lost)
def lost(state: QueueState, command: c.Lost, member: Member, now: float) -> r.Reply:
    """Charge a crash to the job that was executing; give back all other jobs of the dead consumer."""
    lease = state.lease_of(command.token, member) if command.token else None
    if lease is not None:
        index = command.number - lease.chunk.first
        if lease.start <= index < lease.stop:
            state.give_back(lease, lease.start, index, now)
            lease.start = index
            retry_in = crash_retry_in(lease.chunk.records.get(index, NO_RECORD).crashes + 1)
            charge(state, lease, Cause.CRASHED, command.error, retry_in, command.seconds, now)
    if member.worker is not None:
        state.ended(member.worker, command.consumer)
    holder = _consumer(member, command.consumer)
    if holder is not None:
        if command.suspect:
            suspicion.consumer_lost(state, holder, now)
        else:
            give_back_all(state, holder, now)
        state.dismiss(holder)
    return r.Done(1)


def give_back_all(state: QueueState, holder: Member, now: float, *, expired: bool = False) -> int:
    """End all leases of a member, uncharged; return the number of jobs that went back."""
    count = 0
    for place, lease in enumerate(list(holder.leases.values())):
        count += lease.stop - lease.start
        # A consumer runs its jobs in order: only the very first one was executing.
        ran = expired and (place == 0 or holder.role == "plain")
        return_jobs(state, lease, suspicion.run_time(lease, now) if ran else None, now, expired=expired)
    return count


def _give_back_from(
    state: QueueState, lease: LeaseRecord, start: int, now: float, told: c.Release | None = None
) -> None:
    """Give back the jobs of *lease* from *start* on; *told* may say that the first one has begun."""
    if told is not None and told.started and start == lease.start:
        if told.suspect:
            suspicion.accuse(state, lease, told.seconds, now)
            start += 1
        else:
            interrupt(state, lease, told.seconds, now)
    if start < lease.stop:
        state.observer.released(lease.chunk.terms, lease.stop - start)
    state.give_back(lease, start, lease.stop, now)
    lease.stop = start
    if lease.start >= lease.stop:
        state.end_lease(lease)


def _consumer(member: Member, name: str) -> Member | None:
    """Return the consumer *name* of the worker that *member* belongs to."""
    return member.worker.consumers.get(name) if member.worker is not None else None
