"""Test support for users of svc: the real queue in memory, and a function that runs its jobs in place.

    queue = LocalQueue()
    client = local_client(queue)
    job = client.submit("mytasks:resize", "a.png", 800)
    run_jobs(queue, tasks=["mytasks"])
    assert job.result(timeout=1) == "a-800.png"

Nothing here is a fake: the queue is that of the manager, and the runner is that of a consumer.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta

from svc import codec
from svc.broker.local import LocalBroker, LocalQueue
from svc.client.client import BrokerClient
from svc.domain.commands import Ack, Hello, Nack
from svc.domain.job import DEFAULT_QUEUE
from svc.domain.replies import Delivery
from svc.envelope import PickleKeys
from svc.wire import PROTOCOL_VERSION
from svc.worker.registry import Registry
from svc.worker.runner import Failure, Runner

__all__ = ["LocalBroker", "LocalQueue", "local_client", "run_jobs"]

_NAME = "in-place"
#: Signs the pickles of a queue that never leaves this process, so it need not be secret.
_KEYS = PickleKeys((b"of a queue in memory",))
_RESULT_BYTES_MAX = 16 * 1024 * 1024


def local_client(queue: LocalQueue, *, patience: float = 10.0) -> BrokerClient:
    """Return a client of *queue*, whose calls take up to *patience* seconds."""
    return BrokerClient(lambda: LocalBroker(queue), patience=patience, pickle_keys=_KEYS)


def run_jobs(
    queue: LocalQueue,
    tasks: Sequence[str],
    *,
    queues: Sequence[str] = (DEFAULT_QUEUE,),
    accept: Collection[str] = (codec.PLAIN,),
) -> int:
    """Run all ready jobs in this call; return the number of attempts.

    *tasks* are the modules with the tasks. A failed job is retried by a later call, once its backoff has
    passed.

    Raises:
        ConfigurationError: a module cannot be loaded.
    """
    registry = Registry.load(tasks)
    runner = Runner(registry, accept, _RESULT_BYTES_MAX, _KEYS)
    names = list(registry.names())
    hello = Hello(
        PROTOCOL_VERSION, "consumer", _NAME, _NAME, tasks=names, queues=list(queues), accept=list(accept)
    )
    attempts = 0
    with LocalBroker(queue, lambda: hello) as broker:
        outcomes: list[Ack | Nack] = []
        while True:
            grant = broker.lease(limit=1, wait=timedelta(0), outcomes=outcomes).grant
            if not grant.deliveries:
                return attempts
            outcomes = [_attempt(runner, delivery) for delivery in grant.deliveries]
            attempts += len(outcomes)


def _attempt(runner: Runner, delivery: Delivery) -> Ack | Nack:
    task = runner.resolve(delivery.terms)
    result = task.run(delivery.bodies[0], delivery.origin, delivery.first)
    if not isinstance(result, Failure):
        return Ack(delivery.token, delivery.first, [result], [0.0])
    retry_in = None if result.permanent else task.policy.retry_in(delivery.failures + 1, 0.0)
    return Nack(delivery.token, delivery.first, result.error, retry_in, result.cause)
