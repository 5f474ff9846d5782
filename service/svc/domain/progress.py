"""Reports of jobs that run: how far they are, which is not durable, and checkpoints, which are."""

from __future__ import annotations

from svc.domain import commands as c
from svc.domain import events as e
from svc.domain import replay, suspicion
from svc.domain import replies as r
from svc.domain.chunk import Chunk
from svc.domain.field_bounds import REPLY_JOBS_MAX
from svc.domain.handlers import FIND_WORK, ITEM_BYTES, Room, handles, reads
from svc.domain.job_view import Progress
from svc.domain.leases import lease_at
from svc.domain.lifecycle import JobState
from svc.domain.members import LeaseRecord, Member
from svc.domain.outcomes import LEASE_LOST, TOO_MANY, place_of, text_bytes
from svc.domain.queue_state import QueueState
from svc.domain.refusals import DISK


@handles(c.TellProgress)
def tell_progress(state: QueueState, command: c.TellProgress, member: Member, now: float) -> r.Reply:
    """Note how far jobs are, if there is room; a report whose token is not in force changes nothing."""
    taken, lease = 0, None
    for report in command.reports:
        if lease is None or lease.token != report.token:  # those of one lease come together
            lease = _lease_of(state, report.token, member)
        if lease is None or not _has(lease, report.number):
            continue
        told = Progress(report.done, report.total, _shown(report.note), now)
        state.leases.tell(lease, report.number, told)
        taken += 1
    return LEASE_LOST if command.reports and not taken else r.Done(taken)


@handles(c.Checkpoint)
def checkpoint(state: QueueState, command: c.Checkpoint, member: Member, now: float) -> r.Reply:
    """Keep data for the next attempt; after the end of the attempt itself that changes nothing."""
    token, number = command.token, command.number
    lease = lease_in_force(state, token, number, member)
    if lease is None:
        return after_the_end(state, token, number)
    if DISK in state.refusals:
        return r.Refused(DISK.code, "the disk of the journal is nearly full: it keeps no checkpoints now")
    event = e.Checkpointed(now, lease.chunk.origin, number, token, command.data)
    replay.checkpointed(state.ledger, state.record(event), event)
    return r.Done(1)


@reads(c.AskProgress)
def ask_progress(state: QueueState, command: c.AskProgress, room: Room, now: float) -> r.Reply:
    """Return the last reports of jobs."""
    if len(command.ids) > REPLY_JOBS_MAX:
        return TOO_MANY
    places = [place_of(state, job) for job in command.ids]
    for job, place in zip(command.ids, places, strict=True):
        if place is None:
            return r.Refused("unknown_job", f"there is no job {job}, or its retention time has passed")
    leases = {chunk: state.leases.of(chunk) for chunk in {place[0] for place in places if place is not None}}
    room.take(0, FIND_WORK * len(places) + sum(map(len, leases.values())) * 0.1)
    found = [_told(leases, *place) for place in places if place is not None]
    room.take(sum(ITEM_BYTES + text_bytes(each.note) for each in found if each is not None))
    return r.ProgressReports(found)


def progress_of(lease: LeaseRecord | None, number: int) -> Progress | None:
    """Return the last report of job *number* under *lease*, or None."""
    return None if lease is None or lease.progress is None else lease.progress.get(number)


def _told(leases: dict[Chunk, list[LeaseRecord]], chunk: Chunk, index: int) -> Progress | None:
    if chunk.state(index) is not JobState.LEASED:
        return None
    return progress_of(lease_at(leases[chunk], index), chunk.first + index)


def lease_in_force(state: QueueState, token: int, number: int, member: Member) -> LeaseRecord | None:
    """Return the lease under *token* if it is in force for job *number* and *member* may report on it."""
    lease = _lease_of(state, token, member)
    return lease if lease is not None and _has(lease, number) else None


def _lease_of(state: QueueState, token: int, member: Member) -> LeaseRecord | None:
    return state.lease_of(token, member) or suspicion.reclaimed(state, token, member)


def _has(lease: LeaseRecord, number: int) -> bool:
    return lease.start <= number - lease.chunk.first < lease.stop


def after_the_end(state: QueueState, token: int, number: int) -> r.Reply:
    """Answer what came too late: that is fine if the outcome of that very attempt is recorded."""
    settled = state.ledger.settled
    ended = any(settled.has(token, number, 1, failed=failed) for failed in (True, False))
    return r.Done() if ended else LEASE_LOST


def _shown(note: str) -> str:
    """Return a note without characters that a terminal would obey."""
    if note.isprintable():
        return note
    return "".join(character if character.isprintable() else " " for character in note)
