"""Workers come, go and die while jobs run; every job has its one result."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from docker.models.containers import Container

from tests.e2e.readings import Metrics, results, submit_naps
from tests.support.docker import Project, wait_for

pytestmark = [pytest.mark.docker, pytest.mark.slow]
NAP = "chores:nap"
#: Jobs of one submit.
BATCH = 500


@contextmanager
def submitting(service: Project, metrics: Metrics) -> Iterator[list[str]]:
    """Submit a thousand jobs, then more for the length of the block before all are done; yield their ids."""
    before, ids, over = metrics.finished(NAP), list[str](), threading.Event()

    def go_on() -> None:
        while not over.wait(0.2):
            if len(ids) - (metrics.finished(NAP) - before) < 2 * BATCH:
                ids.extend(submit_naps(service, BATCH, seconds=0.1))

    for _ in range(1000 // BATCH):
        ids += submit_naps(service, BATCH, seconds=0.1)
    with ThreadPoolExecutor(1) as pool:
        going_on = pool.submit(go_on)
        try:
            yield ids
        finally:
            over.set()
            going_on.result()


def test_up_waits_until_manager_and_three_workers_are_healthy(service, client):
    states = {
        name: [c.attrs["State"] for c in service.containers(client, name)] for name in ("manager", "worker")
    }
    assert len(states["manager"]) == 1
    assert len(states["worker"]) == 3
    assert {state["Health"]["Status"] for each in states.values() for state in each} == {"healthy"}
    assert [c.attrs["State"]["ExitCode"] for c in service.containers(client, "keys")] == [0]


def test_a_thousand_jobs_survive_scaling_from_3_to_1_to_4(service, client):
    metrics = Metrics(service)
    before = metrics.finished(NAP)
    with submitting(service, metrics) as ids:
        for workers in (1, 4):
            service.scale(workers)
            done = metrics.finished(NAP) - before
            assert done < len(ids), f"no job was left when {workers} workers were there"
            assert len(service.containers(client, "worker")) == workers

    assert len(ids) >= 1000
    assert results(service, ids, 200) == [number % BATCH for number in range(len(ids))]
    assert metrics.finished(NAP) - before == len(ids)


def test_a_worker_container_killed_with_sigkill_loses_nothing(service, client):
    metrics = Metrics(service)
    before = metrics.finished(NAP)
    ids = submit_naps(service, 200, seconds=0.1)
    wait_for(lambda: metrics.finished(NAP) > before, 90, "the first job of the run to end")

    killed, *_ = service.containers(client, "worker")
    killed.kill("SIGKILL")
    assert killed.wait(timeout=90)["StatusCode"] == 137

    assert results(service, ids) == list(range(200))
    assert metrics.finished(NAP) - before == 200
    assert metrics.total("svc_job_attempts_total", task=NAP, outcome="succeeded") == metrics.finished(NAP)


def test_a_worker_whose_supervisor_is_killed_comes_back(service, client):
    crashed, *_ = service.containers(client, "worker")
    before = crashed.attrs["RestartCount"]
    crashed.exec_run(["sh", "-c", "kill -9 $(cat /proc/1/task/1/children)"])

    def back() -> bool:
        crashed.reload()
        health = crashed.attrs["State"].get("Health", {}).get("Status")
        return bool(crashed.attrs["RestartCount"] == before + 1 and health == "healthy")

    wait_for(back, 90, "the worker to be started again and healthy")


def test_a_killed_manager_comes_back_with_every_job(service, client):
    ids = submit_naps(service, 100, seconds=0.1)
    (manager,) = service.containers(client, "manager")
    before = manager.attrs["RestartCount"]
    manager.exec_run(["sh", "-c", "kill -9 $(cat /proc/1/task/1/children)"])
    wait_for(lambda: _has_restarted(manager, before), 90, "the manager's container runs again")
    assert results(service, ids) == list(range(100))
    manager.reload()
    assert manager.attrs["RestartCount"] == before + 1


def _has_restarted(container: Container, before: int) -> bool:
    """Return whether Docker has started *container* again, so that commands can be run in it."""
    container.reload()
    return bool(container.attrs["RestartCount"] > before and container.status == "running")
