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
from svc.domain.queue_state import QueueState
from svc.domain.scheduling import read_ahead
from svc.domain.scheduling.lanes import Lane, Lanes
from svc.domain.scheduling.run_times import RunTime
from svc.domain.stops import STOPS_MAX

#: Bytes that are counted for each row that a grant has read, beside the arguments in it.
ROW_OVERHEAD_BYTES = 16 * 1024
#: A chunk of which so many have room in a grant is counted whole: to add up each body takes longer.
SMALL_PARTS = 64
#: Leases that a member may have however many all members have together.
FEW_LEASES = 64


@handles(c.Lease)
def lease(state: QueueState, command: c.Lease, member: Member, now: float) -> r.Reply | None:
    """Hand out ready jobs, or a pill; None if there is no job and the member would wait."""
    if not may_lease(member):
        return r.Refused("bad_request", "say hello as a consumer before asking for jobs")
    if member.stops:
        # Who asks for jobs has ended all attempts, unless it asks for jobs beside those that it runs.
        member.stops = member.stops[-STOPS_MAX:] if command.beside else []
    if state.ledger.drains.in_force and (pill := pill_for(state, member)):
        return r.Grant([], pill)
    held, limits = len(member.leases), state.limits
    if held >= limits.member_leases or (held >= FEW_LEASES and len(state.leases) >= limits.all_leases):
        return r.Refused("conflict", f"{held} leases are held; acknowledge or release some first")
    # A new lease of a silent worker's consumer would not last; as `Worker.is_silent`, but without a call.
    if member.worker is None or now < member.worker.expires:
        limit = min(command.limit, state.limits.grant_jobs)
        if command.beside:
            return _grant_beside(state, member, command, limit, now)
        if command.running and member.leases:
            return _grant_behind(state, member, command, limit, now)
        grant = _grant_suspect(state, member, now) if _suspects_wait(state) else None
        grant = grant or _grant(state, member, command, limit, now)
        if grant is not None:
            return grant
        if command.wait > 0 and member.worker is not None and not member.leases:
            state.imbalance.note_idle(state, member, now)
    return None if command.wait > 0 else r.Grant()


def may_lease(member: Member) -> bool:
    """Return whether jobs may be handed to *member*: only if its end will be noticed."""
    return member.role == "plain" or (member.role == "consumer" and member.worker is not None)


def pill_for(state: QueueState, member: Member) -> int:
    """Return the epoch of the drain that is in force for *member*, or 0."""
    drains = state.ledger.drains.in_force
    known = drains.get("") or (drains.get(member.worker.name) if member.worker is not None else None)
    return known[0] if known else 0


def offers(state: QueueState, member: Member) -> bool:
    """Return whether there is a job that *member* may have now."""
    if state.lanes.best(member.subscription) is not None:
        return True
    return _suspects_wait(state) and _suspect_lane(state, member) is not None


def _grant_behind(
    state: QueueState, member: Member, command: c.Lease, limit: int, now: float
) -> r.Grant | None:
    """Hand out jobs to run behind those that *member* holds, if these are nearly over.

    No job waits behind a suspect, or behind a job that takes longer than usual; nor does a pill.
    """
    opens_at, closes_at = read_ahead.window(state.run_times, member)
    grant = None
    if opens_at <= now <= closes_at and not _runs_suspect(state, member) and not _pill_is_next(state, member):
        grant = _grant(state, member, command, limit, now)
    return grant or (None if command.wait > 0 else r.Grant())


def _grant(state: QueueState, member: Member, command: c.Lease, limit: int, now: float) -> r.Grant | None:
    lane = state.lanes.best(member.subscription)
    ahead = _seconds_ahead(state, lane, member, command.ahead)
    deliveries: list[r.Delivery] = []
    longest = 0.0
    room = readable = state.limits.grant_bytes
    shares: dict[Lane, int] = {}
    last: Chunk | None = None
    most = state.limits.grant_leases
    while lane is not None and limit > 0 and room > 0 and readable > 0 and len(deliveries) < most:
        if lane.terms.task == PILL and member.role == "consumer":
            if not deliveries:
                take_and_forget(state, lane, now)
                return r.Grant([], r.PILL_PUT_BY_HAND)
            break
        run_time = state.run_times.of(lane.terms.task)
        fitting = limit if ahead is None else min(limit, run_time.fitting(ahead))
        if not fitting and deliveries:
            break
        share = shares.get(lane) or _share(state, lane, max(1, fitting), run_time, ahead)
        behind = ahead is not None and bool(member.leases)
        delivery = _deliver(state, state.lanes, lane, member, min(limit, share), room, now)
        deliveries.append(delivery)
        lease, count = state.leases[delivery.token], len(delivery.bodies)
        lease.behind = behind
        longest = max(longest, run_time.mean)
        shares[lane] = share - count
        if count == share and lane.count:
            break  # the others are for other consumers
        limit -= count
        if ahead is not None:
            ahead -= run_time.mean * count
        chunk = lease.chunk
        room -= _counted_bytes(chunk, delivery.bodies, room)
        if not chunk.in_memory and chunk is not last:
            readable -= ROW_OVERHEAD_BYTES + chunk.size  # the whole row is read, even for one job
            last = chunk
        lane = state.lanes.best(member.subscription)
    if not deliveries:
        return None
    if ahead is not None and (count > 1 or len(member.leases) > 1):
        state.imbalance.note_holder(state, member, now)
    no_more = ahead is None or lane is None
    return r.Grant(deliveries, patience=0.0 if no_more else read_ahead.patience(longest, member))


def _seconds_ahead(state: QueueState, lane: Lane | None, member: Member, asked: float | None) -> float | None:
    """Return the run time of the jobs that *member* may be granted at once, *lane* first; None for any."""
    if asked is None or lane is None or lane.count == 1:
        return asked
    return read_ahead.seconds_ahead(state.run_times, member, asked)


def _grant_beside(
    state: QueueState, member: Member, command: c.Lease, limit: int, now: float
) -> r.Grant | None:
    """Hand out jobs of one task, each under a lease of its own, to run beside those that *member* holds.

    None if there is no job at all, and the member would wait. A suspect runs beside no other job, and a job
    that is first in turn, or a suspect, waits for no other one.
    """
    if _runs_suspect(state, member):
        return r.Grant()
    deliveries: list[r.Delivery] = []
    room = state.limits.grant_bytes
    lane = state.lanes.best(member.subscription)
    if state.suspects.lanes.queues:
        suspect = _suspect_lane(state, member)
        if suspect is not None and (lane is None or suspect.comes_before(lane)):
            return r.Grant()
    share = 0 if lane is None else _share(state, lane, limit)
    while lane is not None and lane.terms.task == command.beside and len(deliveries) < share and room > 0:
        deliveries.append(_deliver(state, state.lanes, lane, member, 1, room, now))
        room -= ROW_OVERHEAD_BYTES + sum(map(len, deliveries[-1].bodies))
        lane = state.lanes.best(member.subscription)
    if not deliveries and lane is not None and lane.terms.task == PILL:
        take_and_forget(state, lane, now)
        return r.Grant([], r.PILL_PUT_BY_HAND)
    if deliveries or lane is not None:
        return r.Grant(deliveries)
    return None if command.wait > 0 else r.Grant()


def _grant_suspect(state: QueueState, member: Member, now: float) -> r.Grant | None:
    """Hand out a suspect, with nothing read ahead, if there is one that comes first."""
    lane, other = _suspect_lane(state, member), state.lanes.best(member.subscription)
    if lane is None or (other is not None and not lane.comes_before(other)):
        return None
    delivery = _deliver(state, state.suspects.lanes, lane, member, 1, state.limits.grant_bytes, now)
    state.suspects.running.append(state.leases[delivery.token])
    state.upkeep_at = 0.0
    return r.Grant([delivery])


def _runs_suspect(state: QueueState, member: Member) -> bool:
    """Return whether *member* runs a suspect, which is alone until it has ended."""
    return any(lease.holder is member for lease in state.suspects.running)


def _pill_is_next(state: QueueState, member: Member) -> bool:
    """Return whether the next job for *member* would be a pill that was put by hand."""
    lane = state.lanes.best(member.subscription)
    return lane is not None and lane.terms.task == PILL


def _suspects_wait(state: QueueState) -> bool:
    """Return whether there are ready suspects that nobody may hold who is to come back after a restart."""
    return bool(state.suspects.lanes.queues) and not state.absentees


def _suspect_lane(state: QueueState, member: Member) -> Lane | None:
    """Return the lane of the suspect that *member* may have now; others are asked again if one has ended."""
    state.readied = state.suspects.forget_ended() or state.readied
    return state.suspects.lane_for(member)


def _counted_bytes(chunk: Chunk, bodies: list[bytes], room: int) -> int:
    """Return about how many bytes *bodies* have; all of a *chunk* that is small beside *room* is counted."""
    return chunk.size if chunk.size * SMALL_PARTS <= room else sum(map(len, bodies))


def _share(
    state: QueueState, lane: Lane, limit: int, run_time: RunTime | None = None, ahead: float | None = None
) -> int:
    """Return how many jobs, *limit* at most, one consumer may take so that no job waits while others idle.

    More requests would cost more than an idle consumer could gain. So no share is below a sixteenth of the
    limit or, of jobs that are read *ahead*, below those that run in half of the time that a request is worth.
    Of jobs that take longer than that together a consumer gets half of an equal share: the next ones are
    smaller, so that all consumers end together.
    """
    equal = lane.count // max(1, state.consumers)
    if run_time is None or ahead is None:
        return min(limit, max(1, limit // 16, equal))
    worth = read_ahead.worth(ahead)
    return min(limit, max(1, run_time.fitting(worth / 2), min(run_time.fitting(worth), equal), equal // 2))


def _deliver(
    state: QueueState, lanes: Lanes, lane: Lane, member: Member, limit: int, room: int, now: float
) -> r.Delivery:
    head = lane.spans[0]
    limit = head.chunk.deliverable(head.start, limit, room)
    _, start, stop, ready_at, chunk = lanes.take(lane, limit)
    lease = state.grant_lease(chunk, start, stop, member, now)
    accepted_at = chunk.at_of(start)
    waited = max(0.0, now - max(ready_at, accepted_at))
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
        accepted_at,
        waited,
        [] if chunk.columns is None else state.headers(chunk, start, stop),
        state.checkpoint(record.checkpoint) if record.checkpoint else b"",
        record.suspicions,
    )
