"""A worker whose control group is full loses a consumer, and not its supervisor with all consumers."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.support.cgroups import Cgroup
from tests.support.privileges import obtained
from tests.support.processes import Service
from tests.support.small_disk import small_disk
from tests.support.svc import until

TASKS = "tests.support.fault_tasks"
LIMIT = 256 << 20
#: A consumer that dies gives more memory back than one step takes, so that the kernel kills no other.
MARGIN, STEP, STEPS_MAX = 4 << 20, 128 << 10, 500


def fill(group: Cgroup, disk: Path) -> None:
    """Fill the group with memory that belongs to none of its processes, a file, until the kernel kills one.

    The file goes at once: a consumer that has just begun, in its place, does not stand before the supervisor.
    """
    file = disk / "filler"
    size = LIMIT - group.memory() - MARGIN
    with file.open("wb") as filler:
        for _ in range(STEPS_MAX):
            if group.kills():
                break
            command = [*group.prefix, "head", "--bytes", str(size), "/dev/zero"]
            subprocess.run(command, stdout=filler, check=False)
            size = STEP
    file.unlink()


def test_the_kernel_chooses_a_consumer_although_the_supervisor_is_larger(tmp_path: Path):
    group = obtained(lambda: Cgroup("full"))
    service = Service(tmp_path, TASKS)
    try:
        group.limit_memory(LIMIT)
        service.start_manager()
        # As `service.worker` it is ended with the service.
        flags = ("--http", "off", "--tasks", TASKS, "--consumers", "1")
        service.worker = worker = service.run("worker", *flags, prefix=group.prefix)
        with small_disk(tmp_path / "memory", 2 * LIMIT >> 10) as disk, service.client() as client:
            assert client.submit(f"{TASKS}:work", "before", 0.0, str(tmp_path)).result(60) == "before"

            fill(group, disk)

            assert group.kills() >= 1
            log = tmp_path / "worker.log"
            until(lambda: worker.poll() is not None or "consumer_died" in log.read_text(), "a process died")
            assert worker.poll() is None
            assert client.submit(f"{TASKS}:work", "behind", 0.0, str(tmp_path)).result(60) == "behind"
    finally:
        service.close()
        group.close()
