"""Test support for users of svc: the real queue in memory, and a function that runs its jobs in place.

    queue = LocalQueue()
    client = local_client(queue)
    job = client.submit("mytasks:resize", "a.png", 800)
    run_jobs(queue, tasks=["mytasks"])
    assert job.result(timeout=1) == "a-800.png"

Nothing here is a fake: the queue is that of the manager, and the runner is that of a consumer.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Sequence
from datetime import timedelta

from svc import codec
from svc.broker.base import expect
from svc.broker.local import LocalBroker, LocalQueue
from svc.client.client import BrokerClient
from svc.domain.commands import Ack, Checkpoint, Hello, JobProgress, Nack, TellProgress
from svc.domain.job import DEFAULT_QUEUE
from svc.domain.replies import Delivery, Done
from svc.envelope import PickleKeys
from svc.wire import PROTOCOL_VERSION
from svc.worker.context import begin, end, run_as_current
from svc.worker.failure import Failure
from svc.worker.hooks import Hooks
from svc.worker.list_call import run_listed
from svc.worker.registry import Registry
from svc.worker.runner import ResolvedTask, Runner
from svc.worker.value_sender import LineRecorder, Recorder
from svc.worker.values import LargeValuesWorker, StoredResult

__all__ = ["LocalBroker", "LocalQueue", "local_client", "run_jobs"]

_NAME = "in-place"
#: Signs the pickles of a queue that never leaves this process, so it need not be secret.
_KEYS = PickleKeys((b"of a queue in memory",))


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
    passed. The hooks of the modules are called around the jobs.

    Raises:
        ConfigurationError: a module cannot be loaded, or a hook of the start failed.
    """
    registry, hooks = Registry.load(tasks), Hooks.load(tasks)
    hooks.start()
    try:
        return _run(queue, registry, queues, accept)
    finally:
        hooks.stop()


def _run(queue: LocalQueue, registry: Registry, queues: Sequence[str], accept: Collection[str]) -> int:
    values = LargeValuesWorker(lambda: LocalBroker(queue))
    runner = Runner(registry, accept, queue.host.limits.max_job_bytes, _KEYS, values=values)
    names = list(registry.names())
    hello = Hello(
        PROTOCOL_VERSION,
        "consumer",
        _NAME,
        _NAME,
        tasks=names,
        queues=list(queues),
        accept=list(codec.accepted(accept)),
    )
    attempts = 0
    with LocalBroker(queue, lambda: hello) as broker:
        outcomes: list[Ack | Nack] = []
        while True:
            grant = broker.lease(limit=1, wait=timedelta(0), outcomes=outcomes).grant
            if not grant.deliveries:
                return attempts
            channel, (first,) = _Channel(broker, queue), grant.deliveries
            batch = runner.resolve(first.terms).batch
            if batch is None:
                outcomes = [_attempt(runner, first, channel)]
            else:
                outcomes = _listed(runner, [first, *_more(broker, first.terms.task, batch - 1)], channel)
            attempts += len(outcomes)


class _Channel:
    """Takes the reports of a job that runs in place, and passes them on at once."""

    def __init__(self, broker: LocalBroker, queue: LocalQueue) -> None:
        self._broker = broker
        self._queue = queue
        self.recorder: Recorder | None = LineRecorder(threading.Lock(), lambda: broker)

    def tell(self, report: JobProgress) -> None:
        self._broker.report([TellProgress([report])])

    def keep(self, checkpoint: Checkpoint, *, durable: bool) -> None:  # noqa: ARG002 - both are one here
        expect(self._broker.report([checkpoint])[0], Done)

    def submitter(self, token: int) -> BrokerClient:
        return BrokerClient(lambda: LocalBroker(self._queue), pickle_keys=_KEYS, under=lambda: token)


def _more(broker: LocalBroker, task: str, limit: int) -> list[Delivery]:
    """Return up to *limit* further jobs of *task*, which run in one call with its first one."""
    found: list[Delivery] = []
    while len(found) < limit:
        grant = broker.lease(limit=limit - len(found), wait=timedelta(0), beside=task).grant
        if not grant.deliveries:
            break
        found += grant.deliveries
    return found


def _listed(runner: Runner, deliveries: Sequence[Delivery], channel: _Channel) -> list[Ack | Nack]:
    jobs = []
    for delivery in deliveries:
        task = runner.resolve(delivery.terms)
        running = begin(delivery, task.limits.timeout, channel, listed=True)
        running.number, running.started = delivery.first, time.monotonic()
        jobs.append((task, running))
    try:
        results = run_listed(jobs)
    finally:
        for _, running in jobs:
            end(running)
    return [
        _outcome(task, running.delivery, result)
        for (task, running), result in zip(jobs, results, strict=True)
    ]


def _attempt(runner: Runner, delivery: Delivery, channel: _Channel) -> Ack | Nack:
    task = runner.resolve(delivery.terms)
    return _outcome(
        task, delivery, run_as_current(task, delivery, delivery.first, delivery.bodies[0], channel)
    )


def _outcome(task: ResolvedTask, delivery: Delivery, result: bytes | Failure) -> Ack | Nack:
    if not isinstance(result, Failure):
        large = [delivery.first] if isinstance(result, StoredResult) else []
        return Ack(delivery.token, delivery.first, [bytes(result)], [0.0], large)
    retry_in = result.retry_in(task.policy, delivery.failures + 1, 0.0)
    return result.nack(delivery.token, delivery.first, retry_in, 0.0)
