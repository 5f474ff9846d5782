"""The output of jobs: what its capture costs, how soon a line is seen, and what a flood of it takes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import tasks
from benchmarks.processes import family, processor_clock, resident_bytes
from benchmarks.systems import PROCESSES, Service, environment, task_name

#: Runs of each kind of worker, one after the other by turns.
TURNS = 16
#: Seconds between two lines; no multiple of any pause of svc.
LINE_SECONDS = 0.083
#: The bound of the store in the flood of many jobs.
STORE_BYTES = 32 * 2**20
_SUFFIXES = ("", "-wal", "-shm")


@dataclass(frozen=True)
class Captured:
    """The figures of one turn.

    Attributes:
        name: the kind of worker.
        rate: no-op jobs a second.
        cpu: processor seconds of the worker for each job.
    """

    name: str
    rate: float
    cpu: float


def capture_rates(durability: str, jobs: int) -> Iterator[Captured]:
    """Yield the figures of a worker that captures output and of one that does not, by turns."""
    with Service(durability, consumers=0) as service:
        kinds = {"captured": (), "not captured": ("--output-bytes", "0")}
        workers = {
            name: (queue, service.start_worker(PROCESSES, "--queues", queue, "--name", queue, *flags))
            for queue, (name, flags) in zip("ab", kinds.items(), strict=True)
        }
        service.wait_for_consumers(2 * PROCESSES)
        for turn in range(-1, TURNS):  # the first one warms up
            for name in kinds if turn % 2 else reversed(kinds):  # who goes first has it easier, or harder
                queue, worker = workers[name]
                seen = _captured(service, name, queue, family(worker.pid), jobs)
                if turn >= 0:
                    yield seen


def _captured(service: Service, name: str, queue: str, pids: list[int], jobs: int) -> Captured:
    clocks = [processor_clock(pid) for pid in pids]
    spent, started = sum(clock() for clock in clocks), time.monotonic()
    for _ in service.client.options(queue=queue).map(task_name(tasks.same), range(jobs)):
        pass
    taken = time.monotonic() - started
    return Captured(name, jobs / taken, (sum(clock() for clock in clocks) - spent) / jobs)


def line_delays(durability: str, lines: int) -> list[float]:
    """Return the seconds from the print of each line to its appearance in `svc logs --follow`."""
    with Service(durability, consumers=1) as service:
        job = service.client.submit(task_name(tasks.tell_times), lines + 20, LINE_SECONDS)
        command = [sys.executable, "-m", "svc", "logs", job.id, "--follow", "--manager", service.address]
        command += ["--authkey-file", str(service.keyfile)]
        delays = []
        with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE) as follower:
            assert follower.stdout is not None
            for line in follower.stdout:
                delays.append(time.time() - float(line))  # noqa: PERF401 - the time of each is its own
        # Those that were printed before the command had started came at once.
        return delays[-lines:]


@dataclass(frozen=True)
class Flooded:
    """The figures of one flood.

    Attributes:
        name: the kind of flood.
        rate: bytes a second that a task wrote.
        bound: the bytes that the manager may keep.
        disk: the bytes of its files.
        grown: the bytes by which its memory had grown at most.
        cpu: the processor seconds of the manager.
    """

    name: str
    rate: float
    bound: int
    disk: int
    grown: int
    cpu: float


def floods(durability: str, size: int, jobs: int) -> Iterator[Flooded]:
    """Yield the figures of *size* bytes from one job, and from *jobs* jobs with a small store."""
    yield _flood(durability, f"1 job of {size // 10**6:,} MB", size, 1, 2**30)
    yield _flood(durability, f"{jobs} jobs of {size // jobs / 1e6:g} MB", size, jobs, STORE_BYTES)


def pipe_rate(size: int) -> float:
    """Return the bytes a second that pass a pipe if a thread of another process only reads them."""
    reader = [sys.executable, "-c", "import os\nwhile os.read(0, 65536): pass"]
    with subprocess.Popen(reader, stdin=subprocess.PIPE) as child:
        assert child.stdin is not None
        block = bytes(tasks.FLOOD_BLOCK)
        started = time.monotonic()
        for _ in range(size // len(block)):
            os.write(child.stdin.fileno(), block)
        return size / (time.monotonic() - started)


def _flood(durability: str, name: str, size: int, jobs: int, bound: int) -> Flooded:
    with Service(durability, "--max-output", str(bound), consumers=1) as service:
        service.one(tasks.flood, 2**20)  # both have done it once
        manager = service.manager.pid
        before, clock = resident_bytes(manager), processor_clock(manager)
        spent, started = clock(), time.monotonic()
        with _peaks(manager) as peaks:
            for _ in service.all(tasks.flood, [size // jobs] * jobs):
                pass
            seconds = time.monotonic() - started
            time.sleep(3.0)  # the rest is on its way
        files = [Path(f"{service.folder / 'journal'}.output{suffix}") for suffix in _SUFFIXES]
        disk = sum(file.stat().st_size for file in files if file.exists())
        return Flooded(name, size / seconds, bound, disk, max(peaks) - before, clock() - spent)


@contextmanager
def _peaks(pid: int) -> Iterator[list[int]]:
    """Collect the resident bytes of a process, meanwhile."""
    sizes = [resident_bytes(pid)]
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.02):
            sizes.append(resident_bytes(pid))

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield sizes
    finally:
        over.set()
        thread.join()
