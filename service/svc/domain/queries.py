"""The commands that only read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.attempts import attempts_of
from svc.domain.chunk import Chunk
from svc.domain.field_bounds import REPLY_JOBS_MAX
from svc.domain.handlers import reads
from svc.domain.holders import Holders
from svc.domain.job import JobView
from svc.domain.job_records import NO_RECORD
from svc.domain.lifecycle import JobState
from svc.domain.members import Worker
from svc.domain.origins import PARTS
from svc.domain.outcomes import TOO_LARGE, TOO_MANY, Reader, place_of
from svc.domain.queue_state import QueueState
from svc.domain.reasons import reason_of
from svc.domain.room import (
    FIND_WORK,
    ITEM_BYTES,
    NAME_WORK,
    PASS_WORK,
    QUEUE_WORK,
    VIEW_WORK,
    Room,
    attempts_bytes,
    text_bytes,
)
from svc.domain.survey import Survey

#: Queues that are counted in one step where it does not matter.
_SURVEYED = 1000
#: A place that no chunk has reached: one looks from the newest on.
_NEWEST = 1 << 63


@reads(c.Get)
def get(state: QueueState, command: c.Get, room: Room, now: float) -> r.Reply:
    """Describe jobs by id, as many of them as fit."""
    if len(command.ids) > REPLY_JOBS_MAX:
        return TOO_MANY
    page = Page(state, room)
    looked = 0
    for job in command.ids:
        place = place_of(state, job)
        room.take(0, FIND_WORK)
        if place is not None and not page.add(*place):
            break
        looked += 1
    left = len(command.ids) - looked
    return TOO_LARGE if left and not command.paged else r.Views(page.views, left)


@reads(c.List)
def find(state: QueueState, command: c.List, room: Room, now: float) -> r.Reply:
    """Describe the newest jobs that match a query, as many as one search finds.

    The place for the next search is the number of a chunk's first event * PARTS + the index of a job in it.
    """
    wanted = {name.word: name for name in JobState}
    if command.state and command.state not in wanted:
        return r.Refused("bad_request", f"{command.state!r} is not a state; states are {', '.join(wanted)}")
    page = Page(state, room)
    limit = min(command.limit, REPLY_JOBS_MAX)
    before = 0
    for chunk, index in _matching(state, command, wanted.get(command.state), room):
        if len(page.views) >= limit:
            break
        before = chunk.sequence * PARTS + index + 1
        if not room.left or (index >= 0 and not page.add(chunk, index)):
            return r.Views(page.views, before=before) if command.paged else TOO_LARGE
    return r.Views(page.views)


def _matching(
    state: QueueState, command: c.List, wanted: JobState | None, room: Room
) -> Iterator[tuple[Chunk, int]]:
    """Yield the jobs that match a query from its place on, newest first; after each chunk, it and -1."""
    sequence, stop = divmod(command.before, PARTS) if command.before else (_NEWEST, 0)
    for chunk in _chunks_before(state, sequence):
        index = chunk.count if chunk.sequence < sequence else stop
        room.take(0, PASS_WORK)
        if command.queue in ("", chunk.terms.queue) and command.task in (
            "",
            chunk.terms.task,
            chunk.terms.shown_task,
        ):
            while index > 0:
                index = index - 1 if wanted is None else chunk.last_in(wanted, index)
                if index >= 0:
                    yield chunk, index
        yield chunk, -1


def _chunks_before(state: QueueState, sequence: int) -> Iterator[Chunk]:
    """Return the chunks up to the one whose first event is *sequence*, newest first."""
    chunks = state.ledger.chunks
    if sequence >= _NEWEST:
        return reversed(chunks.values())
    numbers = list(chunks)
    return (chunks[numbers[place]] for place in range(bisect_right(numbers, sequence) - 1, -1, -1))


class Page:
    """Descriptions of jobs for one answer, as many as its room holds."""

    def __init__(self, state: QueueState, room: Room) -> None:
        """Start empty."""
        self.views: list[JobView] = []
        self._state = state
        self._room = room
        self._reader = Reader(state, room)
        self._holders = Holders(state.leases.values())

    def add(self, chunk: Chunk, index: int) -> bool:
        """Add the description of a job; return whether there was room, as there is for the first one."""
        if self.views and not self._room.left:
            return False
        found = view(self._state, chunk, index, self._holders, self._reader)
        size = _view_bytes(found)
        if self.views and not self._room.holds(size):
            return False
        self._room.take(size, VIEW_WORK)
        self.views.append(found)
        return True


def _view_bytes(view: JobView) -> int:
    names = text_bytes(view.id, view.task, view.queue, view.key, view.consumer, view.reason)
    return 2 * ITEM_BYTES + names + attempts_bytes(view.attempts)


@reads(c.Stats)
def stats(state: QueueState, command: c.Stats, room: Room, now: float) -> r.Reply:
    """Return the counts of every queue and of the members; goes on with the survey that *room* may have."""
    workers = state.workers.values()
    drains = state.ledger.drains.in_force
    survey, room.survey = room.survey or Survey(state, now), None
    while survey.advance(_SURVEYED):
        pass
    queues = survey.queues
    room.take(sum(map(_queue_bytes, queues)), QUEUE_WORK * len(queues))
    return r.Totals(
        queues=queues,
        workers=sum(1 for worker in workers if worker.present),
        consumers=state.consumers,
        busy=sum(1 for worker in workers for each in worker.consumers.values() if each.leases),
        drain=drains[""][0] if "" in drains else 0,
        drained_workers=sorted(name for name in drains if name),
        incarnation=state.incarnation,
    )


@reads(c.Members)
def members(state: QueueState, command: c.Members, room: Room, now: float) -> r.Reply:
    """Describe the connected workers, as many as fit."""
    workers = state.workers
    names = list(workers) if not command.paged else sorted(name for name in workers if name > command.after)
    views: list[r.WorkerView] = []
    for name in names:
        found = _worker_view(state, workers[name])
        size = _worker_bytes(found)
        if views and not room.holds(size):
            return r.Roster(views, views[-1].name) if command.paged else TOO_LARGE
        room.take(size, VIEW_WORK + NAME_WORK * found.consumers * len(found.tasks))
        views.append(found)
    return r.Roster(views)


def _queue_bytes(queue: r.QueueStats) -> int:
    return ITEM_BYTES + text_bytes(queue.name, *queue.unknown, *queue.unaccepted)


def _worker_bytes(view: r.WorkerView) -> int:
    return ITEM_BYTES + text_bytes(view.name, view.host, view.release, view.http, *view.queues, *view.tasks)


def view(state: QueueState, chunk: Chunk, index: int, holders: Holders, reader: Reader) -> JobView:
    """Return the description of one job; *holders* are the current ones, *reader* reads its outcome."""
    terms, job_state, record = chunk.terms, chunk.state(index), chunk.records.get(index, NO_RECORD)
    due = record.due if record.due is not None else chunk.due_of(index)
    holder = holders.of(chunk, index) if job_state == JobState.LEASED else None
    ended = reader.outcome(chunk, index) if job_state.finished else None
    return JobView(
        id=chunk.id(index),
        task=terms.shown_task,
        queue=terms.queue,
        state=job_state.word,
        priority=terms.priority,
        codec=terms.codec,
        submitted_at=chunk.at_of(index),
        due_at=due if job_state == JobState.SCHEDULED else None,
        failures=record.failures,
        crashes=record.crashes,
        interruptions=record.interruptions,
        retries=terms.retries,
        timeout=terms.timeout,
        key=chunk.key_of(index),
        consumer=holder.name if holder else "",
        reason=reason_of(state, chunk, index),
        finished_at=ended.finished_at if ended else None,
        attempts=attempts_of(reader.event, chunk, index),
        suspicions=record.suspicions,
        suspect=state.ledger.losses.of(chunk, index) is not None,
    )


def _worker_view(state: QueueState, worker: Worker) -> r.WorkerView:
    hello = worker.hello
    consumers = worker.consumers.values()
    # Consumers of one kind have the same names: each set is looked through once, not once for each consumer.
    queues = {queue for names in {member.queues for member in consumers} for queue in names}
    tasks = {task for names in {member.tasks for member in consumers} for task in names or ()}
    drains = state.ledger.drains.in_force
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
