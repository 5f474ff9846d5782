"""Hands out ready jobs: chooses the jobs for a consumer and their number, or gives it a pill."""

from __future__ import annotations

from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.chunk import Chunk
from svc.domain.handlers import handles
from svc.domain.job import PILL
from svc.domain.job_records import NO_RECORD
from svc.domain.members import Member
from svc.domain.outcomes import take_and_forget
from svc.domain.queue_state import QueueState, is_silent, may_lease
from svc.domain.scheduling.lanes import Lane, Lanes

#: Bytes that are counted for each row that a grant has read, beside the arguments in it.
ROW_OVERHEAD_BYTES = 16 * 1024
#: A chunk of which so many have room in a grant is counted whole: to add up each body takes longer.
SMALL_PARTS = 64


@handles(c.Lease)
def lease(state: QueueState, command: c.Lease, member: Member, now: float) -> r.Reply | None:
    """Hand out ready jobs, or a pill; None if there is no job and the member would wait."""
    if not may_lease(member):
        return r.Refused("bad_request", "say hello as a consumer before asking for jobs")
    if state.ledger.drains.in_force and (pill := pill_for(state, member)):
        return r.Grant([], pill)
    if len(member.leases) >= state.limits.member_leases:
        return r.Refused(
            "conflict", f"{len(member.leases)} leases are held; acknowledge or release some first"
        )
    if now >= state.hold_until and not is_silent(member, now):
        limit = min(command.limit, state.limits.grant_jobs)
        grant = _grant_suspect(state, member, now) if state.suspects.lanes.queues else None
        grant = grant or _grant(state, member, limit, command.ahead, now)
        if grant is not None:
            return grant
    return None if command.wait > 0 else r.Grant()


def pill_for(state: QueueState, member: Member) -> int:
    """Return the epoch of the drain that is in force for *member*, or 0."""
    drains = state.ledger.drains.in_force
    known = drains.get("") or (drains.get(member.worker.name) if member.worker is not None else None)
    return known[0] if known else 0


def offers(state: QueueState, member: Member) -> bool:
    """Return whether there is a job that *member* may have now."""
    if state.lanes.best(member.subscription) is not None:
        return True
    return bool(state.suspects.lanes.queues) and _suspect_lane(state, member) is not None


def _grant(state: QueueState, member: Member, limit: int, ahead: float | None, now: float) -> r.Grant | None:
    deliveries: list[r.Delivery] = []
    room = readable = state.limits.grant_bytes
    shares: dict[Lane, int] = {}
    last: Chunk | None = None
    while limit > 0 and room > 0 and readable > 0:
        lane = state.lanes.best(member.subscription)
        if lane is None:
            break
        if lane.terms.task == PILL and member.role == "consumer":
            if not deliveries:
                take_and_forget(state, lane, now)
                return r.Grant([], r.PILL_PUT_BY_HAND)
            break
        run_time = state.run_times.of(lane.terms.task)
        fitting = limit if ahead is None else min(limit, run_time.fitting(ahead))
        if not fitting and deliveries:
            break
        if lane not in shares:
            shares[lane] = _share(state, lane, max(1, fitting), short=ahead is not None)
        if not shares[lane]:
            break
        delivery = _deliver(state, state.lanes, lane, member, min(limit, shares[lane]), room, now)
        shares[lane] -= len(delivery.bodies)
        limit -= len(delivery.bodies)
        if ahead is not None:
            ahead -= run_time.mean * len(delivery.bodies)
        deliveries.append(delivery)
        chunk = state.leases[delivery.token].chunk
        room -= _counted_bytes(chunk, delivery.bodies, room)
        if not chunk.in_memory and chunk is not last:
            readable -= ROW_OVERHEAD_BYTES + chunk.size  # the whole row is read, even for one job
            last = chunk
    return r.Grant(deliveries) if deliveries else None


def _grant_suspect(state: QueueState, member: Member, now: float) -> r.Grant | None:
    """Hand out a suspect, with nothing read ahead, if there is one that comes first."""
    lane, other = _suspect_lane(state, member), state.lanes.best(member.subscription)
    if lane is None or (other is not None and not lane.comes_before(other)):
        return None
    delivery = _deliver(state, state.suspects.lanes, lane, member, 1, state.limits.grant_bytes, now)
    state.suspects.running.append(state.leases[delivery.token])
    state.upkeep_at = 0.0
    return r.Grant([delivery])


def _suspect_lane(state: QueueState, member: Member) -> Lane | None:
    """Return the lane of the suspect that *member* may have now; others are asked again if one has ended."""
    state.readied = state.suspects.forget_ended() or state.readied
    return state.suspects.lane_for(member)


def _counted_bytes(chunk: Chunk, bodies: list[bytes], room: int) -> int:
    """Return about how many bytes *bodies* have; all of a *chunk* that is small beside *room* is counted."""
    return chunk.size if chunk.size * SMALL_PARTS <= room else sum(map(len, bodies))


def _share(state: QueueState, lane: Lane, limit: int, *, short: bool) -> int:
    """Return how many jobs, *limit* at most, one consumer may take so that no job waits while others idle.

    More requests would cost more than an idle consumer could gain. So no share is below a sixteenth of the
    limit or, for *short* jobs, which run in a few milliseconds together, below a half.
    """
    return min(limit, max(1, limit // (2 if short else 16), lane.count // max(1, state.consumers)))


def _deliver(
    state: QueueState, lanes: Lanes, lane: Lane, member: Member, limit: int, room: int, now: float
) -> r.Delivery:
    head = lane.spans[0]
    limit = head.chunk.deliverable(head.start, limit, room)
    _, start, stop, ready_at, chunk = lanes.take(lane, limit)
    lease = state.grant_lease(chunk, start, stop, member, now)
    waited = max(0.0, now - max(ready_at, chunk.at_of(start)))
    state.observer.started(chunk.terms, stop - start, waited)
    record = chunk.records.get(start, NO_RECORD)
    return r.Delivery(
        lease.token,
        chunk.origin,
        chunk.first + start,
        chunk.terms,
        state.bodies(chunk, start, stop),
        record.failures,
        record.crashes,
        record.interruptions,
        chunk.at_of(start),
        waited,
        [] if chunk.columns is None else state.headers(chunk, start, stop),
    )
