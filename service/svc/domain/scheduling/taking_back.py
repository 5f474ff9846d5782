"""Jobs that were read ahead and that an idle consumer could run: whose supervisor is told to take them back.

A consumer whose request for jobs waits in vain is idle. Some milliseconds later, some of the consumers are
looked at that may hold jobs behind others. The supervisor of one that does hears of it with the answer to
its renewal. It sees how long the job that runs has been running, so it knows best when to take back those
behind it. A look is bounded, and nothing is done for a single job.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from svc.domain.members import LeaseRecord, Member
from svc.domain.queue_state import QueueState
from svc.domain.replies import TakeBack
from svc.domain.scheduling import read_ahead
from svc.domain.scheduling.lanes import covers

#: Seconds until there is another order for the same lease, or as long as it has run by then.
AGAIN_SECONDS = 0.025
#: Idle consumers that one look serves, members that it passes to find them, and holders that it looks at.
SERVED_MAX, PASSED_MAX, LOOKED_AT_MAX = 4, 64, 16
#: Leases of a holder that it looks at, and orders that wait for the next renewal of one worker.
LEASES_MAX, UNTOLD_MAX = 2, 16


def look(state: QueueState, now: float) -> None:
    """Have jobs taken back that idle consumers could run, for some of these."""
    state.imbalance.begin_look(now)
    idle = _idle_ones(state, now)
    if idle:
        for holder in list(islice(state.imbalance.holders, LOOKED_AT_MAX)):
            _look_at(state, holder, idle, now)
    state.imbalance.end_look(now)


def _idle_ones(state: QueueState, now: float) -> list[Member]:
    """Return those for which jobs may be taken back now, and forget those that are idle no more."""
    idle, found = state.imbalance.idle, list[Member]()
    for member in list(islice(idle, PASSED_MAX)):
        at = idle.pop(member)
        if read_ahead.is_idle(member):
            idle[member] = at  # behind the others
            if at <= now and len(found) < SERVED_MAX:
                found.append(member)
    return found


def _look_at(state: QueueState, holder: Member, idle: list[Member], now: float) -> None:
    """Have the jobs of a holder taken back for one of those that are *idle*, and strike that off."""
    ordered = state.imbalance.holders.pop(holder)
    behind = list(islice(_behind(holder), LEASES_MAX))
    if not behind:
        return
    state.imbalance.holders[holder] = token, again_at = ordered  # behind the others
    if (now < again_at and token in holder.leases) or not _can_be_told(holder):
        return
    if now < read_ahead.last_begins_at(state.run_times, holder) <= now + read_ahead.LOOK_SECONDS:
        return  # the next look sees whether it has
    for lease in behind:
        for member in idle:
            if covers(member.subscription, lease.chunk.terms):
                _order(state, holder, member, now)
                idle.remove(member)
                return


def _order(state: QueueState, holder: Member, member: Member, now: float) -> None:
    """Have jobs of *holder* taken back for *member*, which gets no others while these may be on their way."""
    first, last = next(iter(holder.leases.values())), next(reversed(holder.leases))
    seconds, wait = read_ahead.haste(state.run_times, holder, now)
    state.imbalance.holders[holder] = first.token, now + max(AGAIN_SECONDS, now - first.since)
    state.imbalance.idle[member] = now + wait + 2 * read_ahead.trip(holder)
    if holder.worker is not None:
        holder.worker.take_back.append(TakeBack(holder.name, last, seconds, wait))
        state.stopped.add(holder.worker.name)


def _behind(holder: Member) -> Iterator[LeaseRecord]:
    """Yield the leases with jobs that may begin only when another one has ended."""
    leases = iter(holder.leases.values())
    first = next(leases, None)
    if first is not None and first.stop - first.start > 1:
        yield first
    yield from (lease for lease in leases if lease.behind)


def _can_be_told(holder: Member) -> bool:
    """Return whether the supervisor of *holder* is there, knows such orders, and has room for one."""
    worker = holder.worker
    return (
        worker is not None
        and worker.supervised
        and worker.report.takes_back
        and len(worker.take_back) < UNTOLD_MAX
    )
