"""The pieces of large values: stored before their job is accepted or acknowledged, read while it is kept."""

from __future__ import annotations

from svc.domain import commands as c
from svc.domain import events as e
from svc.domain import replay
from svc.domain import replies as r
from svc.domain.handlers import ITEM_BYTES, READ_BYTE_WORK, READ_WORK, Room, handles, reads
from svc.domain.job import NewChunk, is_reserved_origin
from svc.domain.large_values import RESULT_PLACE, LargeValue
from svc.domain.lifecycle import JobState
from svc.domain.members import LeaseRecord, Member
from svc.domain.names import LARGE, NAME_MAX, is_name
from svc.domain.outcomes import LEASE_LOST, place_of
from svc.domain.queue_state import QueueState
from svc.domain.refusals import DISK

#: Jobs whose arguments may be on their way at the same time, and as many whose results may be.
UNCLAIMED_MAX = 1000
#: The share of all large values that arguments may take: the rest is for results, so jobs can end.
ARGUMENTS_SHARE = 0.75
#: Values that are kept at least, however small their bytes are bounded; each takes some 300 bytes of memory.
VALUES_MIN = 100_000
#: Beyond that, one value for so many of the bytes that all may take.
BYTES_OF_VALUE = 1024 * 1024
#: Rows of unclaimed values that one tick deletes, about.
DROPPED_ROWS = 2000
_UNKNOWN = r.Refused("large_value_lost", "the manager does not have that large value, or not all of it")


@handles(c.StorePiece)
def store_piece(state: QueueState, command: c.StorePiece, member: Member, now: float) -> r.Reply:
    """Store a piece of an argument of a job that is still to be submitted."""
    origin, number = command.origin, command.number
    if not is_name(origin) or is_reserved_origin(origin):
        return r.Refused("bad_request", f"an origin of one's own has 1 to {NAME_MAX} printable characters")
    if command.under and command.under not in state.leases:
        return r.Refused("lease_lost", "the job that stores the value has no lease any more")
    if (refusal := state.refusal) is not None:
        return r.Refused(refusal.code, refusal.message or "the disk of the journal is nearly full")
    if state.ledger.drains.refusing:
        return r.Refused("draining", "the manager drains and accepts no new jobs")
    known = state.ledger.origins.get(origin)
    if known is not None and (known.count_known(number, 1) or number < known.floor):
        return r.Refused("conflict", f"job {number} of {origin} was submitted already")
    event = e.Stored(now, origin, number, 0, command.place, command.size, command.offset, command.data)
    return _store(state, event)


@handles(c.StoreResultPiece)
def store_result_piece(state: QueueState, command: c.StoreResultPiece, member: Member, now: float) -> r.Reply:
    """Store a piece of the result of a job that runs."""
    lease = _lease_of(state, command.token, command.number)
    if lease is None:
        return LEASE_LOST
    if DISK in state.refusals:
        return r.Refused(DISK.code, "the disk of the journal is nearly full: it takes no large results now")
    origin, number, token = lease.chunk.origin, command.number, command.token
    return _store(
        state, e.Stored(now, origin, number, token, RESULT_PLACE, command.size, command.offset, command.data)
    )


@reads(c.FetchArgument)
def fetch_argument(state: QueueState, command: c.FetchArgument, room: Room, now: float) -> r.Reply:
    """Return a piece of an argument of a job that runs."""
    lease = _lease_of(state, command.token, command.number)
    if lease is None:
        return LEASE_LOST
    large = state.ledger.large
    value = large.find(lease.chunk.origin, command.number, 0, command.place)
    return _piece(state, value, command.offset, room)


@reads(c.FetchResult)
def fetch_result(state: QueueState, command: c.FetchResult, room: Room, now: float) -> r.Reply:
    """Return a piece of the result of a job that succeeded."""
    place = place_of(state, command.id)
    if place is None:
        return r.Refused("unknown_job", f"there is no job {command.id}, or its retention time has passed")
    chunk, index = place
    if chunk.state(index) is not JobState.SUCCEEDED:
        return r.Refused("bad_request", f"job {command.id} has no result")
    value = state.ledger.large.result(chunk.origin, chunk.first + index)
    return _piece(state, value, command.offset, room)


def missing_value(state: QueueState, origin: str, chunk: NewChunk) -> r.Note | None:
    """Return why a chunk cannot be accepted: a large argument of its job is not stored; or None."""
    if (chunk.terms.codec == LARGE) != bool(chunk.large):
        return r.Note(0, code="bad_request", message=f"the codec {LARGE!r} and large arguments go together")
    if chunk.large and len(chunk.bodies) != 1:
        return r.Note(0, code="bad_request", message="a chunk with large arguments has one job")
    for place, size in enumerate(chunk.large, start=1):
        value = state.ledger.large.find(origin, chunk.first, 0, place)
        if size and (value is None or not value.whole or value.size != size):
            message = (
                f"the large argument {place} is not stored; a value without a job is kept for "
                f"{state.limits.unclaimed_seconds:g} s: submit the job again"
            )
            return r.Note(0, code="large_value_lost", message=message)
    return None


def drop_unclaimed(state: QueueState, now: float) -> None:
    """Forget values that no job has claimed in time: their client is lost, or their attempt has failed."""
    ledger, budget = state.ledger, DROPPED_ROWS
    for group in list(ledger.large.unclaimed.values()):
        if budget <= 0:
            return
        if now < group.at + state.limits.unclaimed_seconds or group.token in state.leases:
            continue
        rows = ledger.large.drop(group)
        ledger.forgotten.extend(rows)
        budget -= len(rows)


def _lease_of(state: QueueState, token: int, number: int) -> LeaseRecord | None:
    """Return the lease under *token* if it is in force for job *number*.

    Its holder transfers values over a connection of its own, so any member may name the token.
    """
    lease = state.leases.get(token)
    inside = lease is not None and lease.start <= number - lease.chunk.first < lease.stop
    return lease if inside else None


def _store(state: QueueState, event: e.Stored) -> r.Reply:
    """Store the piece if it is the next one; answer with the bytes that are stored."""
    large = state.ledger.large
    value = large.find(event.origin, event.number, event.token, event.place)
    if value is not None and value.size == event.size and (value.whole or event.offset != value.stored):
        return r.Done(value.stored)
    if value is None or value.size != event.size:
        if event.offset:
            return r.Done(0)
        if (refused := _no_room(state, event)) is not None:
            return refused
    if len(event.data) != min(state.limits.piece_bytes, event.size - event.offset):
        wanted = min(state.limits.piece_bytes, event.size - event.offset)
        return r.Refused("bad_request", f"the piece has {len(event.data)} bytes, and {wanted} are expected")
    replay.stored(state.ledger, state.record(event), event)
    state.free_bytes -= len(event.data)  # until somebody looks at the disk again
    return r.Done(event.offset + len(event.data))


def _no_room(state: QueueState, event: e.Stored) -> r.Refused | None:
    """Return why a new value cannot be stored, or None."""
    limits, large, size = state.limits, state.ledger.large, event.size
    if not 0 < size <= limits.max_value_bytes:
        message = (
            f"the value takes {size} bytes and the limit is {limits.max_value_bytes} bytes "
            "(`svc manager --max-value-bytes`); pass a reference to the data instead"
        )
        return r.Refused("job_too_large", message)
    bound = limits.all_values_bytes
    most = max(VALUES_MIN, bound // BYTES_OF_VALUE)
    crowded = not event.token and large.arguments >= most * ARGUMENTS_SHARE
    if crowded or large.count >= most:
        message = (
            f"there are {large.count} large values and {most} are the most, a quarter of them for results; "
            "submit again later (`svc manager --max-values`)"
        )
        return r.Refused("queue_full", message)
    crowded = not event.token and large.arguments_size + size > bound * ARGUMENTS_SHARE
    if crowded or large.size + size > bound:
        message = (
            f"large values take {large.size} bytes and {limits.all_values_bytes} are the most, "
            "a quarter of them for results; submit again later (`svc manager --max-values`)"
        )
        return r.Refused("queue_full", message)
    results = large.unclaimed_results
    if (results if event.token else len(large.unclaimed) - results) >= UNCLAIMED_MAX:
        return r.Refused("queue_full", f"{UNCLAIMED_MAX} jobs with large values are being sent already")
    if large.missing + size > state.free_bytes - limits.min_free_bytes:
        return r.Refused(DISK.code, f"the disk of the journal has no room for {size} bytes more")
    return None


def _piece(state: QueueState, value: LargeValue | None, offset: int, room: Room) -> r.Reply:
    row = None if value is None or not value.whole else value.row_at(offset)
    event = None if row is None else state.event(row)
    if not isinstance(event, e.Stored):
        return _UNKNOWN
    room.take(ITEM_BYTES + len(event.data), READ_WORK + READ_BYTE_WORK * len(event.data))
    return r.Piece(event.data)
