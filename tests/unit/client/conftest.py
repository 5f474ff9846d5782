"""The queue that clients and executors are tried against."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from svc.broker.local import LocalQueue
from svc.domain.limits import Limits


@pytest.fixture
def queue() -> Iterator[LocalQueue]:
    queue = LocalQueue(limits=Limits(max_job_bytes=10_000, max_queue_jobs=5000))
    yield queue
    queue.close()
