"""Tell of a choice of jobs that matches none, with the name that may have been meant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from svc.domain.names import did_you_mean

if TYPE_CHECKING:
    from svc.client.client import BrokerClient

#: The newest jobs, among which a name is looked for that may have been meant.
_JOBS_LOOKED_AT = 200


def none_of(client: BrokerClient, none: str, queue: str, task: str = "") -> str:
    """Return a sentence that there is *none* of a queue and a task, with names that may have been meant."""
    workers, jobs = client.workers(), client.find(limit=_JOBS_LOOKED_AT)
    queues = {stats.name for stats in client.stats().queues}
    queues.update(*(worker.queues for worker in workers), (job.queue for job in jobs))
    tasks = {job.task for job in jobs}.union(*(worker.tasks for worker in workers))
    which = " and ".join(f"the {kind} {name!r}" for kind, name in (("task", task), ("queue", queue)) if name)
    unknown = (
        (name, known) for name, known in ((task, tasks), (queue, queues)) if name and name not in known
    )
    return f"svc: there is {none} of {which}" + next((did_you_mean(*each) for each in unknown), "")
