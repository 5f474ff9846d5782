"""Attempts that end without a result: nack, release, and a supervisor's reports about a dead consumer.

A lease is settled from the front. Its holder reports, or another member of the same worker, and names the
token. A report with a token that is no longer in force changes nothing. If it repeats a report that was
recorded, it gets the same answer again.
"""

from __future__ import annotations

from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain import suspicion
from svc.domain.charges import Usage, charge, interrupt, return_jobs
from svc.domain.field_bounds import COUNTER_MAX
from svc.domain.handlers import handles
from svc.domain.job import Cause
from svc.domain.job_records import NO_RECORD
from svc.domain.members import LeaseRecord, Member, begin_next
from svc.domain.outcomes import DONE, LEASE_LOST, late
from svc.domain.queue_state import QueueState
from svc.domain.retry import crash_retry_in
from svc.domain.returns import GiveBack


@handles(c.Nack)
def nack(state: QueueState, command: c.Nack, member: Member, now: float) -> r.Reply:
    """Charge the attempt at one job; jobs before it in the lease, whose results never came, go back."""
    lease = state.lease_of(command.token, member) or suspicion.reclaimed(state, command.token, member)
    index = -1 if lease is None else command.number - lease.chunk.first
    if lease is None or not lease.start <= index < lease.stop:
        suspicion.came_back(state, command.token, member, now)
        return late(state, command.token, command.number, 1, failed=True)
    state.give_back(lease, lease.start, index, now)
    lease.start = index
    cause, retry_in, usage = command.told_cause, command.retry_in, Usage(command.seconds, command.peak)
    charge(state, lease, cause, command.error, retry_in, usage, now, token=lease.token)
    lease.since = now
    if lease.start >= lease.stop:
        begin_next(lease.holder, now)
    return DONE


@handles(c.Release)
def release(state: QueueState, command: c.Release, member: Member, now: float) -> r.Reply:
    """Give jobs of a lease back, uncharged."""
    lease = state.lease_of(command.token, member) or suspicion.reclaimed(state, command.token, member)
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
    count, last = 0, command.last
    if command.unread and _runs(holder, command.token, command.number):
        last = COUNTER_MAX
    lease = holder.leases.get(command.token)
    if lease is not None and command.token <= last:
        lease.overdue = True
        start = max(lease.start, command.number + 1 - lease.chunk.first)
        if start < lease.stop:
            count += lease.stop - start
            _give_back_from(state, lease, start, now)
    behind = [each for token, each in holder.leases.items() if command.token < token <= last]
    count += sum(each.stop - each.start for each in behind)
    state.returns.add(state, holder, now, _returning(state, expired=False), behind)
    return r.Done(count)


def _runs(holder: Member, token: int, number: int) -> bool:
    """Return whether a job has no outcome yet: else its consumer runs what it was granted after that."""
    lease = holder.leases.get(token)
    return lease is not None and lease.start <= number - lease.chunk.first < lease.stop


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
            usage = Usage(command.seconds, command.peak)
            charge(state, lease, Cause.CRASHED, command.error, retry_in, usage, now)
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
    """End all leases of a member, uncharged; return the number of jobs that go back."""
    count = holder.leased
    charged = 0 if not expired else len(holder.leases) if holder.role == "plain" else 1
    state.returns.add(state, holder, now, _returning(state, charged, expired=expired))
    return count


def _returning(state: QueueState, charged: int = 0, *, expired: bool) -> GiveBack:
    """Return how leases go back of which the first *charged* ones were executing."""

    def give_back(lease: LeaseRecord, place: int, now: float) -> None:
        seconds = suspicion.run_time(lease, now) if place < charged else None
        return_jobs(state, lease, seconds, now, expired=expired)

    return give_back


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
