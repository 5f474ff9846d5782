"""Workers come, go and die while jobs run; every job has its one result."""

from __future__ import annotations

import pytest
from docker.models.containers import Container

from tests.e2e.readings import Metrics, results, submit_naps
from tests.support.docker import wait_for

pytestmark = [pytest.mark.docker, pytest.mark.slow]
NAP = "chores:nap"


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
    ids = submit_naps(service, 1000, seconds=0.1)

    service.scale(1)
    assert metrics.finished(NAP) - before < 1000, "the jobs were done before the workers had gone"
    assert len(service.containers(client, "worker")) == 1
    service.scale(4)
    assert metrics.finished(NAP) - before < 1000, "the jobs were done before the new workers came"
    assert len(service.containers(client, "worker")) == 4

    assert results(service, ids) == list(range(1000))
    assert metrics.finished(NAP) - before == 1000


def test_a_worker_container_killed_with_sigkill_loses_nothing(service, client):
    metrics = Metrics(service)
    before = metrics.finished(NAP)
    ids = submit_naps(service, 200, seconds=0.1)
    wait_for(lambda: metrics.finished(NAP) > before, 20, "the first job of the run to end")

    killed, *_ = service.containers(client, "worker")
    killed.kill("SIGKILL")
    assert killed.wait(timeout=20)["StatusCode"] == 137

    assert results(service, ids) == list(range(200))
    assert metrics.finished(NAP) - before == 200
    assert metrics.total("svc_job_attempts_total", task=NAP, outcome="succeeded") == metrics.finished(NAP)


def test_a_worker_whose_supervisor_is_killed_comes_back(service, client):
    crashed, *_ = service.containers(client, "worker")
    crashed.exec_run(["sh", "-c", "kill -9 $(cat /proc/1/task/1/children)"])

    def back() -> bool:
        crashed.reload()
        health = crashed.attrs["State"].get("Health", {}).get("Status")
        return bool(crashed.attrs["RestartCount"] == 1 and health == "healthy")

    wait_for(back, 30, "the worker to be started again and healthy")


def test_a_killed_manager_comes_back_with_every_job(service, client):
    ids = submit_naps(service, 100, seconds=0.1)
    (manager,) = service.containers(client, "manager")
    before = manager.attrs["RestartCount"]
    manager.exec_run(["sh", "-c", "kill -9 $(cat /proc/1/task/1/children)"])
    wait_for(lambda: _has_restarted(manager, before), 60, "the manager's container runs again")
    assert results(service, ids) == list(range(100))
    manager.reload()
    assert manager.attrs["RestartCount"] == 1


def _has_restarted(container: Container, before: int) -> bool:
    """Return whether Docker has started *container* again, so that commands can be run in it."""
    container.reload()
    return bool(container.attrs["RestartCount"] > before and container.status == "running")
