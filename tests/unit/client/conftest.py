"""A queue in this process, with a client, executors, and consumers that run jobs when told to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from svc.broker.local import LocalBroker, LocalQueue
from svc.client.client import BrokerClient
from svc.client.executor import BrokerExecutor
from svc.domain.limits import Limits
from svc.testing import local_client, run_jobs
from tests.support import executor_tasks as tasks
from tests.support.local_consumer import Consumer
from tests.support.pickle_keys import PICKLE_KEYS

TASKS = [tasks.__name__]
ACCEPT = ["plain", "pickle"]


@pytest.fixture
def queue() -> Iterator[LocalQueue]:
    # Nobody renews the lease of a consumer by hand: on a busy host 15 s may pass before it is used.
    queue = LocalQueue(limits=Limits(max_job_bytes=10_000, max_queue_jobs=5000, lease_seconds=3600.0))
    yield queue
    queue.close()


@pytest.fixture
def client(queue):
    with BrokerClient(lambda: LocalBroker(queue), patience=30.0, pickle_keys=PICKLE_KEYS) as client:
        yield client


@pytest.fixture
def consumer(queue):
    def function(value=None, *rest, **kwargs):
        if value == "fail":
            raise ValueError("as told")
        return [value, *rest, kwargs] if rest or kwargs else value

    return Consumer(queue, function)


@pytest.fixture
def executor(queue):
    """An executor of tasks and data."""
    executor = BrokerExecutor(local_client(queue), patience=30.0)
    yield executor
    executor.shutdown(wait=False, cancel_futures=True)


@pytest.fixture
def pickling(queue):
    """An executor of any callable."""
    executor = BrokerExecutor(local_client(queue), codec="pickle", patience=30.0)
    yield executor
    executor.shutdown(wait=False, cancel_futures=True)


@pytest.fixture
def run(queue, executor, pickling):
    """Run all that was submitted; return how many attempts that took."""

    def run() -> int:
        executor.flush(30)
        pickling.flush(30)
        return run_jobs(queue, TASKS, accept=ACCEPT)

    return run
