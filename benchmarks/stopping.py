"""The time that attempts take to end after their timeout or their cancel, whatever their task does."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import tasks
from benchmarks.systems import Service, task_name
from svc import JobFailed

#: Seconds of the timeout, and of the grace after a cancel.
LIMIT = 1.0
_PATIENCE = 30.0
#: Tasks that run until something stops them, by what they do.
_TASKS: dict[str, Callable[[], None]] = {
    "sleep": tasks.sleep_on,
    "loop of NumPy": tasks.compute_on,
    "loop in C": tasks.loop_on_in_c,
    "regular expression": tasks.match_on,
    "socket.recv": tasks.receive_on,
}


@dataclass(frozen=True)
class Stopped:
    """The seconds to the end of an attempt: beyond its timeout, and after the cancel of its job."""

    name: str
    beyond_timeout: float
    after_cancel: float


def measure(durability: str, repeats: int) -> Iterator[Stopped]:
    """Yield the figures of each kind of task, *repeats* times."""
    with Service(durability, consumers=1) as service:
        for _ in range(repeats):
            for name, function in _TASKS.items():
                yield Stopped(name, _beyond_timeout(service, function), _after_cancel(service, function))


def _beyond_timeout(service: Service, function: Callable[[], None]) -> float:
    """Return the run time, as the supervisor has reported it, less the timeout."""
    service.one(tasks.process, 0)
    submitter = service.client.options(timeout=LIMIT, retries=0)
    job = submitter.submit(task_name(function))
    with contextlib.suppress(JobFailed):
        job.result(_PATIENCE)
    return float(job.view().attempts[-1].seconds) - LIMIT


def _after_cancel(service: Service, function: Callable[[], None]) -> float:
    """Return the time from the call to the end of the consumer's process."""
    pid = service.one(tasks.process, 0)
    job = service.client.submit(task_name(function))
    _until(lambda: job.view().state == "leased")
    time.sleep(0.2)  # it has imported all it needs
    began = time.monotonic()
    job.cancel(grace=LIMIT)
    _until(lambda: _has_ended(pid))
    return time.monotonic() - began


def _has_ended(pid: Any) -> bool:
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return True


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"not within {_PATIENCE:g} s: {condition}")
        time.sleep(0.005)
