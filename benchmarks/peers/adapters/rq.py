"""RQ with SimpleWorker, which runs jobs in the worker itself; the default forks for each job."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from redis import Redis
from rq import Queue
from rq.job import Job

from benchmarks.peers.adapters.workers import PATIENCE, PROCESSES, Workers, later, redis_url


class System(Workers):
    """`rq worker-pool` with four workers."""

    command = (
        *("rq", "worker-pool", "default", "--num-workers", str(PROCESSES), "--url", redis_url()),
        *("--worker-class", "rq.SimpleWorker", "--logging-level", "ERROR"),
    )

    def __init__(self) -> None:
        self._queue = Queue(connection=Redis.from_url(redis_url()))

    def all(self, function: Callable[[Any], Any], arguments: Iterable[Any]) -> Iterable[Any]:
        """Enqueue all in one call, then wait for each result in order."""
        prepared = [Queue.prepare_data(function, (argument,)) for argument in arguments]
        submitted = self._queue.enqueue_many(prepared)
        return later(lambda: map(_result, submitted))

    def one(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """Run one call."""
        return _result(self._queue.enqueue(function, argument))


def _result(job: Job) -> Any:
    """Return the result of a job, with Redis' blocking read of the job's stream of results."""
    result = job.latest_result(timeout=int(PATIENCE))
    if result is None or result.type is not result.Type.SUCCESSFUL:
        raise RuntimeError(f"job {job.id} has no result: {result}")
    return result.return_value
