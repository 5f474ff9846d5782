"""What may be asked without changing anything."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from heapq import nsmallest

import msgspec

from service.domain import commands as c
from service.domain import events as e
from service.domain import replies as r
from service.domain.aliases import is_alias
from service.domain.attempts import attempts_of
from service.domain.batch import Batch
from service.domain.field_bounds import REPLY_JOBS_MAX
from service.domain.holders import Holders
from service.domain.job import ITEM, JobView, Outcome, job_id
from service.domain.known_tasks import KnownTasks
from service.domain.lifecycle import JobState
from service.domain.members import Member, Worker
from service.domain.queue_state import QueueState

#: Bytes of results after which a page of the feed takes nothing more.
FEED_BYTES = 8 * 1024 * 1024
#: Names of tasks that no consumer knows which are given of one queue; they are always counted.
UNKNOWN_NAMES_MAX = 100
_TOO_MANY = r.Refused("bad_request", f"ask for at most {REPLY_JOBS_MAX} jobs at a time")


def get(state: QueueState, command: c.Get, member: Member, now: float) -> r.Reply:
    """Describe jobs by id."""
    if len(command.ids) > REPLY_JOBS_MAX:
        return _TOO_MANY
    places = (_place(state, job) for job in command.ids)
    holders = Holders(state.leases.values())
    return r.Views([view(state, *place, holders) for place in places if place is not None])


def find(state: QueueState, command: c.List, member: Member, now: float) -> r.Reply:
    """Describe the newest jobs that a query names."""
    wanted = {name.word: name for name in JobState}
    if command.state and command.state not in wanted:
        return r.Refused("bad_request", f"{command.state!r} is not a state; states are {', '.join(wanted)}")
    states = [wanted[command.state]] if command.state else list(JobState)
    views: list[JobView] = []
    holders = Holders(state.leases.values())
    limit = min(command.limit, REPLY_JOBS_MAX)
    for batch in reversed(state.ledger.batches.values()):
        if len(views) >= limit:
            break
        if command.queue not in ("", batch.terms.queue) or command.task not in ("", batch.terms.task):
            continue
        for index in range(batch.count - 1, -1, -1):
            if batch.states[index] in states:
                views.append(view(state, batch, index, holders))
                if len(views) >= limit:
                    break
    return r.Views(views)


def await_outcomes(state: QueueState, command: c.Await, member: Member, now: float) -> r.Reply | None:
    """Return the outcomes of jobs once all have one; None while one has not and the member would wait."""
    if len(command.ids) > REPLY_JOBS_MAX:
        return _TOO_MANY
    places: list[tuple[Batch, int]] = []
    waiting = command.wait > 0
    # From the last one on: it is likely to end last, so that one look is enough while it has not.
    for job in reversed(command.ids):
        place = _place(state, job)
        if place is None:
            return r.Refused("unknown_job", f"there is no job {job}, or its retention time has passed")
        if waiting and not place[0].state(place[1]).finished:
            return None
        places.append(place)
    named = zip(command.ids, reversed(places), strict=True)
    ended = [(job, batch, index) for job, (batch, index) in named if batch.state(index).finished]
    outcomes = [_outcome_as(state, *each) for each in ended]
    return r.Outcomes(0, [found for found in outcomes if found is not None], len(places) - len(ended))


def _outcome_as(state: QueueState, job: str, batch: Batch, index: int) -> Outcome | None:
    """Return the outcome of a job under the name by which it was asked for: an alias does not tell the id."""
    found = outcome(state, batch, index)
    return found if found is None or not is_alias(job) else msgspec.structs.replace(found, id=job)


def awaited(feed: c.Feed) -> c.Await | None:
    """Return what is asked by the feed of an alias: it has one job."""
    return c.Await([job_id(feed.origin, 0)], feed.wait) if is_alias(feed.origin) else None


def last_unfinished(state: QueueState, ids: Sequence[str], count: int) -> tuple[int, str, int] | None:
    """Find the last of the first *count* ids whose job has not ended; return (its place + 1, origin, number).

    None if all have, or if one is not known.
    """
    for place in range(count, 0, -1):
        found = _place(state, ids[place - 1])
        if found is None:
            return None
        batch, index = found
        if not batch.state(index).finished:
            return place, batch.origin, batch.first + index
    return None


def newest(state: QueueState, origin: str) -> int:
    """Return the cursor after all outcomes of an origin, or of all where it is ""."""
    if not origin:
        order = state.ledger.outcome_order
        return order[-1] if order else 0
    known = state.ledger.origins.get(origin)
    return known.completions.newest if known is not None else 0


def feed(state: QueueState, command: c.Feed, member: Member, now: float) -> r.Reply | None:
    """Return outcomes in the order they were recorded; None where there is none yet."""
    limit = max(1, min(command.limit, REPLY_JOBS_MAX))
    instead = awaited(command)
    if instead is not None:
        return await_outcomes(state, instead, member, now)
    if command.origin:
        page = _feed_origin(state, command.origin, command.cursor, limit, command.folded)
    else:
        page = r.Outcomes(*_feed_all(state, command.cursor, limit))
    if not page.outcomes and not page.spans and command.wait > 0:
        return None
    return page


def stats(state: QueueState, command: c.Stats, member: Member, now: float) -> r.Reply:
    """Return the counts of every queue and of the members."""
    workers = state.workers.values()
    drain = state.ledger.drains.get("")
    known, running = state.known_tasks, _running_since(state)
    names = sorted(name for name in state.ledger.counts if name[0] != "#")
    return r.Totals(
        queues=[_queue_stats(state, name, known, running.get(name, now), now) for name in names],
        workers=sum(1 for worker in workers if worker.present),
        consumers=state.consumers,
        busy=sum(1 for worker in workers for each in worker.consumers.values() if each.leases),
        drain=drain[0] if drain else 0,
        drained_workers=sorted(name for name in state.ledger.drains if name),
        incarnation=state.incarnation,
    )


def members(state: QueueState, command: c.Members, member: Member, now: float) -> r.Reply:
    """Describe the connected workers."""
    return r.Roster([_worker_view(state, worker) for worker in state.workers.values()])


def view(state: QueueState, batch: Batch, index: int, holders: Holders) -> JobView:
    """Return the description of one job; *holders* are those of now."""
    terms, job_state, record = batch.terms, batch.state(index), batch.records.get(index)
    due = record.due if record is not None and record.due is not None else batch.due_of(index)
    holder = holders.of(batch, index) if job_state == JobState.LEASED else None
    ended = outcome(state, batch, index) if job_state.finished else None
    return JobView(
        id=batch.id(index),
        task=terms.task,
        queue=terms.queue,
        state=job_state.word,
        priority=terms.priority,
        codec=terms.codec,
        submitted_at=batch.at_of(index),
        due_at=due if job_state == JobState.SCHEDULED else None,
        failures=record.failures if record else 0,
        crashes=record.crashes if record else 0,
        interruptions=record.interruptions if record else 0,
        retries=terms.retries,
        timeout=terms.timeout,
        key=batch.key_of(index),
        consumer=holder.name if holder else "",
        reason=_reason(state, batch, index),
        finished_at=ended.finished_at if ended else None,
        attempts=attempts_of(state, batch, index),
    )


def outcome(state: QueueState, batch: Batch, index: int) -> Outcome | None:
    """Return how a finished job ended, from the event that recorded it."""
    if batch.outcomes is None:
        return None
    event = state.event(batch.outcomes[index])
    number = batch.first + index
    if isinstance(event, e.Succeeded):
        for span in event.ranges:
            if span.origin == batch.origin and span.first <= number < span.first + len(span.results):
                return _success(batch, span, number, event.at)
    if isinstance(event, e.Failed):
        return _death(batch, event)
    if isinstance(event, e.Cancelled):
        return Outcome(batch.id(index), JobState.CANCELLED, finished_at=event.at, task=batch.terms.task)
    return None


def _success(batch: Batch, span: e.Range, number: int, at: float) -> Outcome:
    place = number - span.first
    return Outcome(
        job_id(span.origin, number),
        JobState.SUCCEEDED,
        span.results[place],
        None,
        batch.terms.codec,
        at,
        span.seconds[place],
        batch.terms.task,
    )


def _death(batch: Batch, event: e.Failed) -> Outcome:
    return Outcome(
        job_id(event.origin, event.number),
        JobState.DEAD,
        b"",
        event.error,
        batch.terms.codec,
        event.at,
        event.seconds,
        batch.terms.task,
    )


def _feed_origin(state: QueueState, name: str, cursor: int, limit: int, folded: bool) -> r.Outcomes:
    origin = state.ledger.origins.get(name)
    if origin is None:
        return r.Outcomes(cursor, [])
    outcomes: list[Outcome] = []
    spans: list[r.Span] = []
    size = 0
    for entry in origin.completions.after(cursor, limit):
        if size >= FEED_BYTES:
            break
        cursor = entry.cursor
        batch = origin.find(entry.first)
        if batch is None or not _tells(batch, entry.first, entry.sequence):
            continue
        event = state.event(entry.sequence)
        if isinstance(event, e.Succeeded):
            span = _span(batch, event.ranges[entry.part], event.at)
            spans.append(span)
            size += sum(map(len, span.results))
        elif event is not None:
            ended = list(_outcomes_of(state, entry.sequence, event, {entry.first}))
            outcomes.extend(ended)
            size += _bytes_of(ended)
    page = r.Outcomes(cursor, outcomes, 0, spans)
    return page if folded else page.unfolded()


def _tells(batch: Batch, number: int, sequence: int) -> bool:
    """Return whether event *sequence* is the one that tells how a job of *batch* has ended.

    It is not if the job was made ready again since; then the journal may no longer have the event.
    """
    return batch.outcomes is not None and batch.outcomes[number - batch.first] == sequence


def _span(batch: Batch, part: e.Range, at: float) -> r.Span:
    terms = batch.terms
    return r.Span(part.origin, part.first, part.results, part.seconds, terms.codec, at, terms.task)


def _feed_all(state: QueueState, cursor: int, limit: int) -> tuple[int, list[Outcome]]:
    order = state.ledger.outcome_order
    outcomes: list[Outcome] = []
    counted = size = 0
    for sequence in order[bisect_right(order, cursor) :]:
        if sequence in state.ledger.references:
            event = state.event(sequence)
            if event is not None:
                outcomes.extend(_outcomes_of(state, sequence, event))
        cursor = sequence
        size += _bytes_of(outcomes[counted:])
        counted = len(outcomes)
        if counted >= limit or size >= FEED_BYTES:
            break
    return cursor, outcomes


def _bytes_of(outcomes: list[Outcome]) -> int:
    return sum(len(outcome.result) for outcome in outcomes)


def _outcomes_of(
    state: QueueState, sequence: int, event: e.AnyEvent, numbers: set[int] | None = None
) -> Iterator[Outcome]:
    """Yield the outcomes that an event recorded, of jobs that are still known."""
    origins = state.ledger.origins
    if isinstance(event, e.Succeeded):
        for span in event.ranges:
            place = origins.find(span.origin, span.first)
            if place is not None:
                for number in range(span.first, span.first + len(span.results)):
                    yield _success(place[0], span, number, event.at)
    elif isinstance(event, e.Failed):
        place = origins.find(event.origin, event.number)
        if place is not None and _tells(place[0], event.number, sequence):
            yield _death(place[0], event)
    elif isinstance(event, e.Cancelled):
        for number in event.numbers:
            place = origins.find(event.origin, number)
            if place is not None and (numbers is None or number in numbers):
                terms = place[0].terms
                yield Outcome(
                    job_id(event.origin, number), JobState.CANCELLED, finished_at=event.at, task=terms.task
                )


def _place(state: QueueState, job: str) -> tuple[Batch, int] | None:
    try:
        return state.ledger.find(job)
    except ValueError:
        return None


def _reason(state: QueueState, batch: Batch, index: int) -> str:
    """Return why a job waits, or "" where it does not."""
    job_state = batch.state(index)
    record = batch.records.get(index)
    if job_state == JobState.SCHEDULED:
        retrying = record is not None and record.due is not None
        return "waits for its retry after a failed attempt" if retrying else "waits for its delay to pass"
    if job_state != JobState.READY:
        return ""
    terms = batch.terms
    if "" in state.ledger.drains:
        return "the service is draining; `svc resume` ends that"
    if terms.task == ITEM:
        return "plain data: only a plain client takes it"
    if not state.consumers:
        return "no worker is connected"
    if not state.known_tasks.has(terms.queue, terms.task):
        return f"no connected worker of queue {terms.queue!r} knows the task {terms.task!r}"
    return "waits for an idle consumer"


def _running_since(state: QueueState) -> dict[str, float]:
    """Return when the oldest lease of each queue was granted."""
    since: dict[str, float] = {}
    for lease in state.leases.values():
        queue = lease.batch.terms.queue
        granted_at = since.get(queue)
        if granted_at is None or lease.granted_at < granted_at:
            since[queue] = lease.granted_at
    return since


def _queue_stats(
    state: QueueState, name: str, known: KnownTasks, running_since: float, now: float
) -> r.QueueStats:
    counts = state.ledger.counts[name]
    oldest = state.lanes.oldest(name)
    unknown = known.unknown(name, state.lanes.tasks(name))
    return r.QueueStats(
        name=name,
        ready=counts.ready,
        scheduled=counts.scheduled,
        leased=counts.leased,
        dead=counts.dead,
        succeeded=counts.succeeded,
        cancelled=counts.cancelled,
        submitted=counts.submitted,
        oldest=max(0.0, now - oldest) if oldest is not None else 0.0,
        oldest_running=max(0.0, now - running_since),
        unknown=nsmallest(UNKNOWN_NAMES_MAX, unknown) if unknown else [],
        unknown_tasks=len(unknown),
    )


def _worker_view(state: QueueState, worker: Worker) -> r.WorkerView:
    hello = worker.hello
    consumers = worker.consumers.values()
    # Those of one kind have the same names: each set is looked through once, not for each consumer.
    queues = {queue for names in {member.queues for member in consumers} for queue in names}
    tasks = {task for names in {member.tasks for member in consumers} for task in names or ()}
    drains = state.ledger.drains
    return r.WorkerView(
        name=worker.name,
        host=hello.host if hello else "",
        pid=hello.pid if hello else 0,
        release=hello.release if hello else "",
        consumers=len(worker.consumers),
        busy=sum(1 for member in consumers if member.leases),
        restarts=worker.report.restarts,
        leased=sum(lease.stop - lease.start for member in consumers for lease in member.leases.values()),
        queues=sorted(queues),
        tasks=sorted(task for task in tasks if not task.startswith("#")),
        connected_at=worker.connected_at,
        seen_at=worker.seen_at,
        draining="" in drains or worker.name in drains or worker.report.stopping,
        http=hello.http if hello else "",
        address=worker.supervisor.address if worker.supervisor else "",
    )
