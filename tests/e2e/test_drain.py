"""`svc drain` ends every worker with 0, and nothing but `svc resume` brings the work back."""

from __future__ import annotations

import pytest

from tests.e2e.readings import WORKERS, Metrics, results, submit_naps

pytestmark = [pytest.mark.docker, pytest.mark.slow]
#: Seconds that three containers may take to start, get their pills and exit, on a machine that is busy.
START = 150
#: Twelve seconds of work for all consumers: a drain comes in its midst, also on a slow machine.
JOBS = 240
SECONDS = 0.6


def test_drained_workers_exit_0_and_stay_down_until_resumed(service, client):
    metrics = Metrics(service)
    before = metrics.finished("chores:nap")
    ids = submit_naps(service, JOBS, seconds=SECONDS)

    service.svc("drain", "--no-wait")  # in a container that runs: before the work is done
    service.cli("drain")
    workers = service.containers(client, "worker")
    assert len(workers) == WORKERS
    assert [worker.wait(timeout=START)["StatusCode"] for worker in workers] == [0] * WORKERS
    done = metrics.finished("chores:nap") - before
    assert 0 <= done < JOBS

    service.compose("restart", "worker")
    assert [worker.wait(timeout=START)["StatusCode"] for worker in workers] == [0] * WORKERS
    for worker in workers:
        worker.reload()
        assert worker.attrs["State"]["Status"] == "exited"
        assert worker.attrs["RestartCount"] == 0
    assert metrics.finished("chores:nap") - before == done
    assert metrics.total("svc_draining") == 1

    service.svc("resume")
    service.heal(WORKERS)
    assert results(service, ids) == list(range(JOBS))
    assert metrics.finished("chores:nap") - before == JOBS
