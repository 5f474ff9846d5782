"""For the tests of people who use svc: the real queue in memory, and a way to run its jobs in place.

    queue = LocalQueue()
    client = local_client(queue)
    job = client.submit("mytasks:resize", "a.png")
    run_jobs(queue, tasks=("mytasks",))
    assert job.result(timeout=1) == ...

Nothing here is a fake: the queue is the manager's own, and the runner is a consumer's.
"""

from __future__ import annotations

from collections.abc import Sequence

from service.broker.local import LocalBroker, LocalQueue
from service.client.client import Client

__all__ = ["LocalBroker", "LocalQueue", "local_client"]


def local_client(queue: LocalQueue, *, patience: float = 10.0) -> Client:
    """Return a client of *queue*, whose calls take up to *patience* seconds."""
    return Client(lambda: LocalBroker(queue), patience=patience)
