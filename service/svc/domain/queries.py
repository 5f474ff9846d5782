"""The commands that only read."""

from __future__ import annotations

from collections import Counter
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
#: Work for a job that is leased, of which a worker's description has the number.
LEASED_WORK = 0.1
#: A place that no chunk has reached: one looks from the newest on.
_NEWEST = 1 << 63


@reads(c.Get)
def get(state: QueueState, command: c.Get, room: Room, now: float) -> r.Reply:
    """Describe jobs by id, as many of them as fit."""
    if len(command.ids) > REPLY_JOBS_MAX:
        return TOO_MANY
    page = Page(state, room, content=command.content)
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
    for chunk in state.ledger.chunks.until(sequence):
        index = chunk.count if chunk.sequence < sequence else stop
        room.take(0, PASS_WORK)
        if command.queue in ("", chunk.terms.queue) and command.task in (
            "",
            chunk.terms.task,
            chunk.terms.shown_task,
        ):
            while index > 0:
                index = chunk.last_in(wanted, index)
                if index >= 0:
                    yield chunk, index
        yield chunk, -1


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
        found = _worker_view(state, workers[name], now)
        size = _worker_bytes(found)
        if views and not room.holds(size):
            return r.Roster(views, views[-1].name) if command.paged else TOO_LARGE
        work = PASS_WORK * found.consumers + NAME_WORK * (len(found.tasks) + len(found.queues))
        work += LEASED_WORK * found.leased
        room.take(size, VIEW_WORK + work)
        views.append(found)
    return r.Roster(views)


def connected(state: QueueState, now: float) -> list[r.WorkerView]:
    """Describe all connected workers, without their queues, tasks and leases: these may be very many."""
    return [_worker_view(state, worker, now, named=False) for worker in state.workers.values()]


def _queue_bytes(queue: r.QueueStats) -> int:
    return ITEM_BYTES + text_bytes(queue.name, *queue.unknown, *queue.unaccepted)


def _worker_bytes(view: r.WorkerView) -> int:
    texts = (view.name, view.host, view.release, view.http, *view.queues, *view.tasks, *view.code)
    return ITEM_BYTES + text_bytes(*texts)


def _worker_view(state: QueueState, worker: Worker, now: float, *, named: bool = True) -> r.WorkerView:
    hello = worker.hello
    consumers = worker.consumers.values()
    # Consumers of one kind have the same names: each set is looked through once, not once for each consumer.
    subscriptions = {member.subscription for member in consumers} if named else set()
    queues = {queue for names, _, _ in subscriptions for queue in names}
    tasks = {task for _, names, _ in subscriptions for task in names or ()}
    leases = [lease for member in consumers for lease in member.leases.values()] if named else []
    leased = sum([lease.stop - lease.start for lease in leases])
    drains = state.ledger.drains.in_force
    return r.WorkerView(
        name=worker.name,
        host=hello.host if hello else "",
        pid=hello.pid if hello else 0,
        release=hello.release if hello else "",
        consumers=len(worker.consumers),
        busy=sum(1 for member in consumers if member.leases),
        restarts=worker.report.restarts,
        leased=leased,
        queues=sorted(queues),
        tasks=sorted(task for task in tasks if not task.startswith("#")),
        connected_at=worker.connected_at,
        seen_at=worker.seen_at,
        draining="" in drains or worker.name in drains or worker.report.stopping,
        http=hello.http if hello else "",
        address=worker.supervisor.address if worker.supervisor else "",
        code=dict(Counter(member.code for member in consumers if member.code)),
        round_trip=worker.round_trip,
        read_ahead=leased - sum([not lease.behind for lease in leases]),
        silent=worker.is_silent(now),
        doubled=worker.shows_doubled(now),
    )
