"""Why jobs have not ended: what the manager says of them, and the nearest names of what it does not know."""

from __future__ import annotations

from collections.abc import Collection
from itertools import islice
from typing import NamedTuple

from svc.broker.base import Broker
from svc.domain.job import IDLE, PASSING, JobView
from svc.domain.lifecycle import JobState
from svc.domain.names import did_you_mean
from svc.domain.replies import WorkerView

#: Jobs of which one question asks.
SAMPLE = 100


class Reason(NamedTuple):
    """Why a job has not ended.

    Attributes:
        text: the rest of a sentence that begins with the job, for instance `waits: no worker is connected`.
        blocked: whether the job goes on only if somebody does something about it.
    """

    text: str
    blocked: bool


def reasons_of(broker: Broker, ids: Collection[str]) -> dict[str, Reason]:
    """Return why jobs have not ended, of the first `SAMPLE` of *ids*; those that have are left out."""
    views = broker.get(list(islice(ids, SAMPLE)))
    blocked = any(view.state == JobState.READY.word and view.reason not in PASSING for view in views)
    roster = broker.members() if blocked else []
    return {view.id: _reason(view, roster) for view in views if not JobState[view.state.upper()].finished}


def _reason(view: JobView, roster: list[WorkerView]) -> Reason:
    if view.state == JobState.LEASED.word:
        return Reason(f"is with the consumer {view.consumer}", blocked=False)
    if view.state == JobState.SCHEDULED.word or view.reason == IDLE:
        return Reason(view.reason + _last_error(view), blocked=False)
    if view.reason in PASSING:
        return Reason(f"waits: {view.reason}", blocked=False)
    return Reason(f"waits: {view.reason}{_nearest(view, roster)}", blocked=True)


def _last_error(view: JobView) -> str:
    if not view.attempts:
        return ""
    error = view.attempts[-1].error
    return f" ({': '.join(filter(None, (error.type, error.message)))})"


def _nearest(view: JobView, roster: list[WorkerView]) -> str:
    """Return the end of a sentence that names what the job's queue or task may have been meant to be."""
    queues = {queue for worker in roster for queue in worker.queues}
    if view.queue not in queues:
        return did_you_mean(view.queue, queues)
    tasks = {task for worker in roster if view.queue in worker.queues for task in worker.tasks}
    return "" if view.task in tasks else did_you_mean(view.task, tasks)
