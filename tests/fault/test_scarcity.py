"""The means of the campaign work: packets are lost, memory ends, the time of day jumps."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.cgroups import Cgroup
from tests.support.faketime import Clock
from tests.support.history import read_executions
from tests.support.namespaces import LOSE_OUTGOING, Namespace
from tests.support.privileges import obtained
from tests.support.processes import Service
from tests.support.svc import until

TASKS = "tests.support.fault_tasks"


def test_a_namespace_loses_packets_and_carries_them_again():
    network = obtained(Namespace)
    # Lost packets make the short wait fail always; a busy machine must not make the long one fail.
    dial = f"import socket; socket.create_connection(({network.host!r}, %d), %g)"
    try:
        with socket.create_server((network.host, 0)) as listener:

            def code(seconds: float) -> int:
                program = dial % (listener.getsockname()[1], seconds)
                command = [*network.prefix, sys.executable, "-c", program]
                return subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode

            codes = [code(60.0)]
            network.lose(LOSE_OUTGOING)
            codes.append(code(0.5))
            network.heal()
            codes.append(code(60.0))
    finally:
        network.close()
    assert codes == [0, 1, 0]


def test_the_kernel_kills_what_needs_more_memory_than_its_group_has():
    group = obtained(lambda: Cgroup("test"))
    try:
        group.limit_memory(64 << 20)
        done = subprocess.run([*group.prefix, sys.executable, "-c", "bytes(1) * (256 << 20)"], check=False)
    finally:
        group.close()
    assert done.returncode == -signal.SIGKILL


@pytest.mark.slow
def test_a_time_of_day_that_jumps_by_hours_ends_no_lease(tmp_path: Path):
    clock = obtained(lambda: Clock(tmp_path / "time_of_day"))
    service = Service(tmp_path, TASKS, consumers=1)
    try:
        # Far shorter than the jumps, and longer than a busy machine lets a worker wait.
        service.start_manager("--lease", "20", environment=clock.environment)
        service.start_worker()
        with service.client() as client:
            job = client.submit(f"{TASKS}:work", "long", 3.0, str(tmp_path))
            until(lambda: read_executions(tmp_path), "the job runs")
            seen = [_seen_after(service, clock, hours) for hours in (6, -12, 24)]
            assert client.result(job.id) == "long"
    finally:
        service.close()
    assert [round(each / timedelta(hours=1)) for each in seen] == [6, -12, 24]
    assert len(read_executions(tmp_path)) == 1


def _seen_after(service: Service, clock: Clock, hours: int) -> timedelta:
    """Jump; return the offset of the manager's time of day after that, from its log."""
    assert service.manager is not None
    count = _lines_about_keys(service)
    clock.jump(hours * 3600)
    service.manager.send_signal(signal.SIGHUP)
    lines = until(lambda: _lines_about_keys(service)[len(count) :], "the keys are read again")
    return datetime.fromisoformat(str(lines[0]["timestamp"])) - datetime.now(UTC)


def _lines_about_keys(service: Service) -> list[dict[str, object]]:
    return [line for line in service.log("manager") if line.get("event") == "keys_read"]
