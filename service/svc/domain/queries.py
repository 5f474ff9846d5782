"""The commands that only read."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.chunk import Chunk
from svc.domain.field_bounds import REPLY_JOBS_MAX
from svc.domain.handlers import (
    FIND_WORK,
    ITEM_BYTES,
    NAME_WORK,
    PASS_WORK,
    QUEUE_WORK,
    VIEW_WORK,
    Room,
    reads,
)
from svc.domain.lifecycle import JobState
from svc.domain.members import Worker
from svc.domain.origins import PARTS
from svc.domain.outcomes import TOO_LARGE, TOO_MANY, place_of, text_bytes
from svc.domain.queue_state import QueueState
from svc.domain.survey import Survey
from svc.domain.views import Page

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


def _worker_view(state: QueueState, worker: Worker) -> r.WorkerView:
    hello = worker.hello
    consumers = worker.consumers.values()
    # Consumers of one kind have the same names: each set is looked through once, not once for each consumer.
    subscriptions = {member.subscription for member in consumers}
    queues = {queue for names, _, _ in subscriptions for queue in names}
    tasks = {task for _, names, _ in subscriptions for task in names or ()}
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
