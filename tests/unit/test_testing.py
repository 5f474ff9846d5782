"""The part of svc for the tests of users."""

from __future__ import annotations

import pytest

from svc.errors import JobFailed
from svc.testing import LocalQueue, local_client, run_jobs


@pytest.fixture
def queue():
    queue = LocalQueue()
    yield queue
    queue.close()


def test_jobs_are_run_in_place_by_the_consumers_own_runner(queue):
    client = local_client(queue)
    jobs = [client.submit("operator-like:missing", 1), client.submit("svc.cli.demo_tasks:multiply", 6, 7)]

    assert run_jobs(queue, ["svc.cli.demo_tasks"]) == 1
    assert jobs[1].result(timeout=0) == 42
    assert jobs[0].view().state == "ready"


def test_a_job_that_can_never_run_is_dead_with_its_reason(queue):
    client = local_client(queue)
    job = client.submit("svc.cli.demo_tasks:multiply", "six", 7)
    run_jobs(queue, ["svc.cli.demo_tasks"])

    with pytest.raises(JobFailed, match="ArgumentError"):
        job.result(timeout=0)
