"""A manager that was stopped for longer than a lease lasts gives no running job to a second consumer."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import Service, descendants
from tests.support.svc import until

LEASE = 2.0
#: The manager stands still for so long, and the jobs run for longer.
STOPPED = LEASE + 1.5
RUN = STOPPED + 1.5


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    running = Service(tmp_path, "tests.support.worker_tasks", consumers=2)
    running.start_manager("--lease", f"{LEASE}s", "--durability", "os")
    running.start_worker()
    yield running
    running.close()


def lines(path: Path) -> list[str]:
    return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []


@pytest.mark.slow
@pytest.mark.parametrize("stops", [1, pytest.param(2, marks=pytest.mark.long)])
def test_no_job_runs_twice_because_the_manager_was_stopped(service, tmp_path, stops):
    marks = [tmp_path / f"mark{place}" for place in range(2)]
    with service.client() as client:
        jobs = [client.submit("tests.support.worker_tasks:mark", str(each), RUN * stops) for each in marks]
        until(lambda: all(map(lines, marks)), "both jobs run")
        for _ in range(stops):
            service.manager.send_signal(signal.SIGSTOP)
            with pytest.raises(subprocess.TimeoutExpired):  # the test is about this wait
                service.manager.wait(STOPPED)
            service.manager.send_signal(signal.SIGCONT)
            assert client.stats().queues  # it is awake, and has read the waiting requests
        for job in jobs:
            job.result(60)
        assert [lines(each) for each in marks] == [["begin", "end"]] * 2
        assert [client.view(job.id).interruptions for job in jobs] == [0, 0]
    assert "manager_stalled" in {record["event"] for record in service.log("manager")}


def signal_all(service: Service, number: int, *, worker_first: bool) -> None:
    """Signal the manager, the worker and all the worker's processes."""
    assert service.manager is not None
    assert service.worker is not None
    worker = [service.worker.pid, *descendants(service.worker.pid)]
    for pid in [*worker, service.manager.pid] if worker_first else [service.manager.pid, *worker]:
        os.kill(pid, number)


@pytest.mark.slow
@pytest.mark.parametrize("worker_first", [pytest.param(True, marks=pytest.mark.long), False])
def test_no_job_runs_twice_because_the_whole_host_was_frozen(service, tmp_path, worker_first):
    """Asleep, or its virtual machine suspended: nobody is behind anybody else when it wakes up."""
    marks = [tmp_path / f"mark{place}" for place in range(2)]
    with service.client() as client:
        jobs = [client.submit("tests.support.worker_tasks:mark", str(each), 1.5) for each in marks]
        until(lambda: all(map(lines, marks)), "both jobs run")
        for _ in range(2):
            signal_all(service, signal.SIGSTOP, worker_first=worker_first)
            with pytest.raises(subprocess.TimeoutExpired):  # the test is about this wait
                service.manager.wait(STOPPED)
            signal_all(service, signal.SIGCONT, worker_first=worker_first)
            assert client.stats().queues
        for job in jobs:
            job.result(60)
        assert [lines(each) for each in marks] == [["begin", "end"]] * 2
        assert [client.view(job.id).interruptions for job in jobs] == [0, 0]
