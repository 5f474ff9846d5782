"""New jobs: a submit is checked, and its jobs become durable as few events.

Consecutive chunks of one submit are a *run*, which one event accepts together. A client sends each job with
a key, or with a delay of its own, as a chunk of one job. If each of these were recorded by itself, it would
take a row and a chunk.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from svc.domain import commands as c
from svc.domain import events as e
from svc.domain import replies as r
from svc.domain.columns import content_digest
from svc.domain.field_bounds import SUBMIT_JOBS_MAX
from svc.domain.handlers import handles
from svc.domain.job import (
    DEFAULT_QUEUE,
    ITEM_CODEC,
    PERMANENT_QUEUES,
    NewChunk,
    Terms,
    alias_of,
    check_chunk,
    is_reserved_origin,
    job_id,
    put_origin,
)
from svc.domain.keys import digest_at
from svc.domain.known_tasks import not_accepted, not_known
from svc.domain.members import Member
from svc.domain.names import LARGE, NAME_MAX, is_name
from svc.domain.origins import Origin
from svc.domain.pieces import missing_value
from svc.domain.plain_commands import ITEM_TERMS, PILL_TERMS, RESULT_TERMS
from svc.domain.queue_state import QueueState
from svc.domain.repeats import Repeats

#: Jobs that one event accepts at most if they come as several chunks.
RUN_JOBS_MAX = 1000
#: Jobs that one event accepts at most: they become a chunk, which is read and forgotten in one step.
EVENT_JOBS_MAX = 5000
#: The codes of refusals that pass: a put of a plain client waits for that.
PASSING = frozenset(("queue_full", "journal_full", "draining"))
#: Stands for any plain client: it may look at no jobs of others.
_PUTTER = Member("plain", inside=True)
_PUTTER.reads_all = False


@handles(c.Submit)
def submit(state: QueueState, command: c.Submit, member: Member, now: float) -> r.Reply:
    """Accept chunks; a note reports each one that was refused or known already."""
    if state.ledger.origins.get(command.origin) is None and not is_name(command.origin):
        return r.Refused("bad_request", f"an origin has 1 to {NAME_MAX} printable characters")
    if not member.inside and is_reserved_origin(command.origin):
        return r.Refused("bad_request", f"the origin {command.origin!r} is the manager's own; choose another")
    if len(command.chunks) > 1 and sum(len(chunk.bodies) for chunk in command.chunks) > SUBMIT_JOBS_MAX:
        return r.Refused("bad_request", f"submit at most {SUBMIT_JOBS_MAX} jobs at a time")
    if command.under and command.under not in state.leases and not _all_known(state, command):
        return r.Refused("lease_lost", "the job that submits them has no lease any more; none was accepted")
    notes: list[r.Note] = []
    run = Run(state, command.origin, now, inside=member.inside)
    for place, chunk in enumerate(command.chunks):
        if run.count and not run.may_add(chunk):
            run.record()
        if member.inside or not _reserved(chunk):
            note = _submit_one(state, command, chunk, member, run)
        else:
            note = r.Note(0, code="bad_request", message="names that begin with # are the manager's own")
        if note is not None:
            if note.code:
                # A refused chunk must not make an unknown queue known, nor add a label to the metrics.
                queue = chunk.terms.queue if chunk.terms.queue in state.ledger.counts else ""
                state.observer.rejected(queue, note.code, len(chunk.bodies))
            notes.append(r.Note(place, note.id, note.code, note.message, note.anew))
    run.record()
    return r.Accepted(notes)


def _all_known(state: QueueState, command: c.Submit) -> bool:
    """Return whether all jobs of a submit were accepted before: it is a repeat."""
    origin = state.ledger.origins.get(command.origin)
    return origin is not None and all(
        origin.count_known(chunk.first, len(chunk.bodies)) == len(chunk.bodies) for chunk in command.chunks
    )


def _submit_one(
    state: QueueState, command: c.Submit, chunk: NewChunk, member: Member, run: Run
) -> r.Note | None:
    origin, strict = command.origin, command.strict
    note = _malformed(chunk)
    known = state.ledger.origins.get(origin)
    if note is None and known is not None:
        count = known.count_known(chunk.first, len(chunk.bodies))
        if count:
            note = run.repeats(known).note(chunk, count)
            if note is None:
                return None
        elif chunk.first < known.floor:
            message = f"the numbers of {origin} below {known.floor} are used up; number anew"
            note = r.Note(0, code="conflict", message=message)
    size = sum(map(len, chunk.bodies))
    note = note or _same_key(state, origin, chunk, member) or _obstacle(state, chunk, size, strict, run)
    if note is None and (chunk.large or chunk.terms.codec == LARGE):
        note = missing_value(state, origin, chunk)
    if note is None:
        run.add(chunk, size)
        if chunk.large:
            state.ledger.large.claim_arguments(origin, chunk.first)
    return note


@handles(c.Put)
def put(state: QueueState, command: c.Put, member: Member, now: float) -> r.Reply | None:
    """Accept the job of a plain client; a note has its id. None if it would wait for room."""
    origins, origin = state.ledger.origins, put_origin(state.incarnation)
    if _is_data(command) and _is_free_to_enter(state, command):
        first, terms = origins.next_put, command.terms
        origins.next_put += 1
        joins = _joins(state, origin, first, 1, terms)
        event = e.Submitted(now, origin, first, terms, [command.body], None, "", [], [], joins)
        _record(state, event, 1, len(command.body), now)
        return r.Accepted([r.Note(0, job_id(origin, first))])
    chunk = NewChunk(origins.next_put, command.terms, [command.body], command.delay, command.key)
    run, size = Run(state, origin, now, inside=True), len(command.body)
    note = None if _is_data(command) else _malformed(chunk) or _same_key(state, origin, chunk, _PUTTER)
    if note is not None and note.code == "conflict" and command.written:
        as_written = msgspec.structs.replace(chunk, bodies=[command.written])
        note = _same_key(state, origin, as_written, _PUTTER)
    note = note or _obstacle(state, chunk, size, False, run)
    if note is None and chunk.terms.codec == LARGE:
        note = missing_value(state, origin, chunk)
    if note is None:
        origins.next_put += 1
        run.add(chunk, size)
        run.record()
        return r.Accepted([r.Note(0, job_id(origin, chunk.first))])
    if command.wait > 0 and note.code in PASSING:
        return None
    if note.code:
        known = chunk.terms.queue if chunk.terms.queue in state.ledger.counts else ""
        state.observer.rejected(known, note.code, 1)
    return r.Accepted([note])


def _is_data(command: c.Put) -> bool:
    """Return whether a put is of plain data: then all its fields but the body are the manager's own."""
    terms = command.terms
    own = terms is ITEM_TERMS or terms is RESULT_TERMS or terms is PILL_TERMS
    return own and not command.key and not command.delay


def _is_free_to_enter(state: QueueState, command: c.Put) -> bool:
    """Return whether one more job of plain data exceeds no bound, so that no message about one is needed."""
    queue = command.terms.queue
    known = queue in state.ledger.counts
    return known and len(command.body) <= state.limits.max_job_bytes and has_room(state, queue)


def has_room(state: QueueState, queue: str) -> bool:
    """Return whether *queue* takes one more job; a new queue, key or client may be one too many even so."""
    ledger, limits = state.ledger, state.limits
    if state.refusals or ledger.drains.refusing or ledger.unfinished >= limits.max_jobs:
        return False
    counts = ledger.counts.get(queue)
    return counts is None or counts.waiting < limits.max_queue_jobs


def _reserved(chunk: NewChunk) -> bool:
    """Return whether a chunk uses names that the manager reserves for the calls of plain clients."""
    terms = chunk.terms
    return terms.codec == ITEM_CODEC or terms.task.startswith("#") or terms.queue.startswith("#")


def _malformed(chunk: NewChunk) -> r.Note | None:
    """Return the fault that a chunk has in any state of the queue, or None."""
    if not chunk.bodies or (chunk.key and len(chunk.bodies) != 1):
        return r.Note(0, code="bad_request", message="a chunk has jobs, and exactly one where it has a key")
    try:
        check_chunk(chunk)
    except ValueError as error:
        return r.Note(0, code="bad_request", message=f"a job is out of bounds: {error}")
    return None


def _obstacle(state: QueueState, chunk: NewChunk, size: int, strict: bool, run: Run) -> r.Note | None:
    """Return why a chunk cannot be accepted now, or None; its bodies have *size* bytes together."""
    terms, most = chunk.terms, state.limits.max_job_bytes
    if size > most and (largest := max(map(len, chunk.bodies))) > most:
        message = (
            f"the arguments take {largest} bytes and the limit is {most} bytes "
            "(`svc manager --max-job-bytes`); pass a reference to the data instead"
        )
        return r.Note(0, code="job_too_large", message=message)
    if (refusal := state.refusal) is not None:
        return r.Note(0, code=refusal.code, message=refusal.message)
    if state.ledger.drains.refusing:
        return r.Note(0, code="draining")
    full = _exceeded(state, chunk, run)
    if full is not None:
        return r.Note(0, code="queue_full", message=full)
    if strict and not state.known_tasks.has(terms.queue or DEFAULT_QUEUE, terms.task):
        return r.Note(0, code="unknown_task", message=not_known(terms))
    if strict and not state.known_tasks.accepts(terms):
        return r.Note(0, code="codec", message=not_accepted(terms))
    return None


def _same_key(state: QueueState, origin: str, chunk: NewChunk, member: Member) -> r.Note | None:
    """Return a note with the job that already has the key of *chunk*, or None.

    If the member may not read that job, the note names it by its alias, which tells the member nothing new.
    """
    if not chunk.key:
        return None
    place = state.ledger.keys.find(chunk.key)
    if place is None:
        return None
    known = place[0].id(place[1])
    # A client that guesses a key must not learn the origin of another client's jobs: it opens all results.
    own = member.reads_all or (place[0].origin == origin and not member.inside)
    digest = content_digest(chunk.terms.task, chunk.bodies[0])
    if digest_at(*place) == digest:
        return r.Note(0, id=known if own else alias_of(chunk.key, digest))
    whose = f"job {known}, which has" if own else "a job that has"
    message = f"the key {chunk.key!r} belongs to {whose} another task or arguments"
    return r.Note(0, id=known if own else "", code="conflict", message=message)


def _exceeded(state: QueueState, chunk: NewChunk, run: Run) -> str | None:
    """Return a message about the bound that *chunk* would exceed after the jobs of *run*, or None."""
    ledger, limits = state.ledger, state.limits
    queue, more = chunk.terms.queue, run.count + len(chunk.bodies)
    counts = ledger.counts.get(queue)
    if (counts.waiting if counts is not None else 0) + more > limits.max_queue_jobs:
        return _full(f"queue {queue!r} holds its {limits.max_queue_jobs} waiting jobs", "--max-queue")
    if ledger.unfinished + more > limits.max_jobs:
        return _full(f"all queues together hold their {limits.max_jobs} jobs", "--max-jobs")
    if counts is None and len(ledger.counts) >= limits.max_queues and queue not in PERMANENT_QUEUES:
        return _full(f"there are {limits.max_queues} queues with jobs, and {queue!r} is none", "--max-queues")
    if chunk.key and len(ledger.keys) + len(run.keys) >= limits.max_keys:
        return _full(f"the jobs that are kept have {limits.max_keys} keys", "--max-keys")
    if run.begins_origin and len(ledger.origins) >= limits.max_origins:
        return _full(f"jobs of {limits.max_origins} clients are known", "--max-origins")
    return None


def _full(bound: str, setting: str) -> str:
    return f"{bound}; submit again later (`svc manager {setting}`)"


class Run:
    """Chunks that were found acceptable and are not recorded yet."""

    __slots__ = ("_chunks", "_inside", "_now", "_origin", "_repeats", "_size", "_state", "count", "keys")

    def __init__(self, state: QueueState, origin: str, now: float, *, inside: bool = False) -> None:
        """Start empty. Chunks will be of *origin*, the manager's own if *inside*, and come at time *now*."""
        self._inside = inside
        self._state = state
        self._origin = origin
        self._now = now
        self._chunks: list[NewChunk] = []
        self._repeats: Repeats | None = None
        #: The number of jobs, and the keys, that the next event accepts.
        self.count = 0
        self.keys: set[str] = set()
        #: Bytes of the jobs' bodies.
        self._size = 0

    @property
    def begins_origin(self) -> bool:
        """Whether no job of the client is known before these chunks."""
        return not self._inside and self._state.ledger.origins.get(self._origin) is None

    def repeats(self, origin: Origin) -> Repeats:
        """Return the comparison of chunks with known jobs of their *origin*; made at the first need."""
        if self._repeats is None:
            self._repeats = Repeats(self._state, origin)
        return self._repeats

    def may_add(self, chunk: NewChunk) -> bool:
        """Return whether the event of the held chunks can accept *chunk* too."""
        if not self._chunks or self.count + len(chunk.bodies) > RUN_JOBS_MAX:
            return False
        first = self._chunks[0]
        return (
            chunk.first == first.first + self.count
            and (chunk.terms is first.terms or chunk.terms == first.terms)
            and chunk.key not in self.keys
        )

    def add(self, chunk: NewChunk, size: int) -> None:
        """Hold *chunk*, which is acceptable after the held ones; its bodies have *size* bytes."""
        self._chunks.append(chunk)
        self._size += size
        self.count += len(chunk.bodies)
        if chunk.key:
            self.keys.add(chunk.key)

    def record(self) -> None:
        """Accept the held chunks with one event or, if it is one very large chunk, with several."""
        if not self._chunks:
            return
        _record(self._state, self._event(), self.count, self._size, self._now)
        self._chunks, self.keys, self.count, self._size = [], set(), 0, 0

    def _event(self) -> e.Submitted:
        now, origin, chunks = self._now, self._origin, self._chunks
        first, terms = chunks[0].first, chunks[0].terms
        joins = _joins(self._state, origin, first, self.count, terms)
        if len(chunks) == 1:
            due, key, bodies = self._due(chunks[0]) or None, chunks[0].key, chunks[0].bodies
            return e.Submitted(now, origin, first, terms, bodies, due, key, [], [], joins, chunks[0].headers)
        bodies = [body for chunk in chunks for body in chunk.bodies]
        dues = [self._due(chunk) for chunk in chunks for _ in chunk.bodies]
        keys = [chunk.key for chunk in chunks for _ in chunk.bodies] if self.keys else []
        headers: list[bytes] = []
        if any(chunk.headers for chunk in chunks):
            headers = [header for each in chunks for header in each.headers or [b""] * len(each.bodies)]
        if dues.count(dues[0]) == len(dues):
            return e.Submitted(
                now, origin, first, terms, bodies, dues[0] or None, "", [], keys, joins, headers
            )
        return e.Submitted(now, origin, first, terms, bodies, None, "", dues, keys, joins, headers)

    def _due(self, chunk: NewChunk) -> float:
        """Return the due time of the jobs of *chunk*; 0 if they are ready at once."""
        return self._now + chunk.delay if chunk.delay > 0 else 0.0


def _joins(state: QueueState, origin: str, first: int, count: int, terms: Terms) -> bool:
    """Return whether new jobs join the chunk of the job before them."""
    chunk = state.ledger.origins.joined_by(origin, first, count, terms)
    # New jobs must not wait with those that an absentee may hold.
    return chunk is not None and not state.absentees.may_hold(chunk)


def _record(state: QueueState, whole: e.Submitted, count: int, size: int, now: float) -> None:
    """Accept the *count* jobs of an event, whose bodies have *size* bytes together."""
    state.observer.submitted(whole.terms, count, size)
    for event in _parts(whole) if count > EVENT_JOBS_MAX else (whole,):
        known = size if event is whole else None
        added, start = state.ledger.submitted(state.record(event), event, known)
        state.admit(added, start, now)


def _parts(event: e.Submitted) -> Iterator[e.Submitted]:
    """Yield several events that accept the jobs of *event*, which has no keys or dues columns then."""
    bodies = event.bodies
    for start in range(0, len(bodies), EVENT_JOBS_MAX):
        stop = start + EVENT_JOBS_MAX
        part, headers = bodies[start:stop], event.headers[start:stop]
        yield msgspec.structs.replace(event, first=event.first + start, bodies=part, headers=headers)
