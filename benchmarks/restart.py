"""The pause of a restart: from a manager that serves again to the first job that begins.

A backlog waits and all consumers are busy when the manager is stopped. It is started again at the same
address. In the last kind one of the two workers is gone for good: the oldest jobs of the backlog wait.
"""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import tasks
from benchmarks.systems import Service, task_name

CONSUMERS = 8
#: Jobs that the consumers run, at least, before the manager is stopped.
_WARM = 3 * CONSUMERS
_SECONDS_MAX = 30.0


@dataclass(frozen=True)
class Restart:
    """The figures of one kind of stop.

    Attributes:
        name: the way in which the manager was stopped.
        median: seconds from the manager's readiness to the first job that began, at the median.
        longest: the same, at most.
    """

    name: str
    median: float
    longest: float


def measure(durability: str, waiting: int, rounds: int) -> Iterator[Restart]:
    """Yield the figures of each kind; *waiting* jobs are the backlog."""
    for name, number, gone in (
        ("kill -9, all workers live", signal.SIGKILL, False),
        ("SIGTERM, all workers live", signal.SIGTERM, False),
        ("kill -9, one worker gone", signal.SIGKILL, True),
    ):
        pauses = [_pause(durability, waiting, number, gone=gone) for _ in range(rounds)]
        yield Restart(name, statistics.median(pauses), max(pauses))


def _pause(durability: str, waiting: int, number: int, *, gone: bool) -> float:
    with Service(durability, consumers=CONSUMERS) as service:
        started = service.folder / "started"
        other = service.start_worker(CONSUMERS, "--name", "other") if gone else None
        service.wait_for_consumers(CONSUMERS * (1 + gone))
        submitter = service.client.options(queue="default")
        submitter.submit_many(task_name(tasks.note_start), ((str(started),) for _ in range(waiting)))
        _until_begun(started, _WARM)
        if other is not None:
            os.kill(other.pid, signal.SIGKILL)
        service.manager.send_signal(number)
        service.manager.wait()
        before = time.time()
        service.start_manager()
        ready = time.time()
        return max(0.0, _first_after(started, before) - ready)


def _begun(path: Path) -> list[float]:
    lines = path.read_text().split() if path.exists() else []
    return [float(line) for line in lines]


def _until_begun(path: Path, count: int) -> None:
    end = time.monotonic() + _SECONDS_MAX
    while len(_begun(path)) < count:
        if time.monotonic() > end:
            raise TimeoutError(f"{count} jobs have not begun within {_SECONDS_MAX:g} s")
        time.sleep(0.01)


def _first_after(path: Path, at: float) -> float:
    """Return the time at which the first job began after the Unix time *at*."""
    end = time.monotonic() + _SECONDS_MAX
    while time.monotonic() < end:
        later = [began for began in _begun(path) if began > at + 2 * tasks.NOTED_SECONDS]
        if later:
            return min(later)
        time.sleep(0.01)
    raise TimeoutError(f"no job has begun within {_SECONDS_MAX:g} s")
