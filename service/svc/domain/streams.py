"""Partial results of jobs: a consumer records them while the job runs, and clients read them.

The partial results of one attempt are a *stream*. A job has one stream at a time: the first partial result
of a later attempt begins another one, and the rows of the one before are forgotten. A token names it for
readers, since no two attempts share one.
"""

from __future__ import annotations

from svc.domain import commands as c
from svc.domain import events as e
from svc.domain import replay
from svc.domain import replies as r
from svc.domain.handlers import FIND_WORK, ITEM_BYTES, Room, handles, reads
from svc.domain.job_records import NO_RECORD
from svc.domain.job_streams import JobStream
from svc.domain.limits import Limits
from svc.domain.members import Member
from svc.domain.outcomes import Reader, place_of
from svc.domain.progress import after_the_end, lease_in_force
from svc.domain.queue_state import QueueState
from svc.domain.refusals import DISK
from svc.errors import RowMissing

#: Bytes of a partial result beside its content.
VALUE_OVERHEAD_BYTES = 8


@handles(c.Yield)
def record_values(state: QueueState, command: c.Yield, member: Member, now: float) -> r.Reply:
    """Record partial results that are new; after the end of the attempt itself that changes nothing."""
    token, number = command.token, command.number
    lease = lease_in_force(state, token, number, member)
    if lease is None:
        return after_the_end(state, token, number)
    chunk = lease.chunk
    record = chunk.records.get(number - chunk.first, NO_RECORD)
    stream = record.stream
    own = stream if stream is not None and stream.token == token else None
    count = 0 if own is None else own.count
    if command.first > count:
        return r.Refused(
            "bad_request", f"{count} partial results are recorded, so {command.first} is not next"
        )
    values = command.values[count - command.first :]
    if not values:
        return r.Done(count)
    refused = _refusal(state, own, values)
    if refused is not None:
        return refused
    place = (stream.place[0] + 1 if stream is not None else 1) if own is None else own.number
    event = e.Yielded(now, chunk.origin, number, token, count, values, place, record.ended + 1)
    replay.yielded(state.ledger, state.record(event), event)
    state.yielded.add((chunk.origin, number))
    state.observer.counted("svc_partial_results_total", by=len(values))
    state.observer.counted("svc_partial_result_bytes_total", by=sum(map(len, values)))
    return r.Done(count + len(values))


@reads(c.ReadStream)
def read_stream(state: QueueState, command: c.ReadStream, room: Room, now: float) -> r.Reply | None:
    """Return partial results; None if there are none yet and the member would wait."""
    place = place_of(state, command.id)
    if place is None:
        return r.Refused("unknown_job", f"there is no job {command.id}, or its retention time has passed")
    chunk, index = place
    room.take(ITEM_BYTES, FIND_WORK)
    stream, ended = chunk.records.get(index, NO_RECORD).stream, chunk.has_ended(index)
    if stream is None:
        return r.StreamPart(ended=ended) if ended or not command.wait > 0 else None
    (number, attempt), first = stream.place, command.start
    if command.token not in (0, stream.token):
        return r.StreamPart(stream.token, number, attempt, ended=ended)
    values = _values(Reader(state, room), stream, first, room)
    if not values and not ended and command.wait > 0:
        return None
    last = ended and first + len(values) >= stream.count
    return r.StreamPart(stream.token, number, attempt, first, values, last)


def job_of(state: QueueState, job: str) -> tuple[str, int]:
    """Return the origin and the number of a job that is known by the id *job*."""
    place = place_of(state, job)
    return ("", 0) if place is None else (place[0].origin, place[0].first + place[1])


def too_long(limits: Limits, count: int, size: int) -> str:
    """Return why *count* partial results of *size* bytes are too many, or ""."""
    if count > limits.stream_values:
        return f"a job may give {limits.stream_values} partial results"
    if size > limits.stream_bytes:
        return f"the partial results of a job may take {limits.stream_bytes} bytes"
    return ""


def _refusal(state: QueueState, stream: JobStream | None, values: list[bytes]) -> r.Refused | None:
    """Return why *values* are not recorded after those of *stream*; None if they are."""
    limits = state.limits
    most = min(limits.stream_value_bytes, limits.max_job_bytes)
    longest, size = max(map(len, values)), sum(map(len, values))
    if longest > most:
        return r.Refused("job_too_large", f"a partial result takes {longest} bytes, and {most} are the most")
    if (refusal := state.refusal) is not None:  # each row of a stream takes memory, too
        why = "the disk of the journal is nearly full" if refusal is DISK else "its memory is nearly full"
        return r.Refused(refusal.code, f"the manager keeps no partial results now: {why}")
    count, before = (0, 0) if stream is None else (stream.count, stream.size)
    reason = too_long(limits, count + len(values), before + size)
    return r.Refused("stream_too_long", reason) if reason else None


def _values(reader: Reader, stream: JobStream, start: int, room: Room) -> list[bytes]:
    """Return partial results from number *start* on: as many as fit, and at least one."""
    found: list[bytes] = []
    for row, skipped in stream.parts(start):
        if found and not room.left:
            break
        event = reader.event(row)
        if not isinstance(event, e.Yielded):
            raise RowMissing(f"event {row} is gone from the journal")  # it is a row, not a type
        for value in event.values[skipped:]:
            size = len(value) + VALUE_OVERHEAD_BYTES
            if found and not room.holds(size):
                return found
            room.take(size, FIND_WORK)
            found.append(value)
    return found
