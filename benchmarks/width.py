"""Many connected consumers: their cost while they are idle, and the rate of jobs compared with four."""

from __future__ import annotations

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import tasks
from benchmarks.many_consumers import TASK, ManyConsumers
from benchmarks.processes import cpu_seconds, resident_bytes
from benchmarks.systems import PROCESSES, Service

#: Descriptors that this process and the manager need in addition to one for each consumer.
_OTHER_FILES = 500
#: How often a single job is submitted to count the consumers that get a message.
_SINGLES = 20
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Width:
    """The figures of one run.

    Attributes:
        consumers: the number of connected consumers.
        idle_percent: the percentage of one core that the manager used while all consumers waited.
        resident: bytes that the manager had resident then.
        rate: jobs a second, from their submit in bulk until consumers had reported all.
        manager_seconds: processor time of the manager for each of these jobs.
        messages: the number of messages that consumers got for one job that was submitted alone.
    """

    consumers: int
    idle_percent: float
    resident: int
    rate: float
    manager_seconds: float
    messages: float


def measure(durability: str, consumers: int, jobs: int, seconds: float) -> tuple[Width, Width]:
    """Return the figures of *consumers*, and of four, on one manager: idle for *seconds*, then with jobs."""
    allow_files(2 * consumers + _OTHER_FILES)
    room = str(consumers + _OTHER_FILES)
    with Service(durability, "--max-connections", room, "--max-per-address", room, consumers=0) as service:
        few = _one(service, PROCESSES, jobs, min(2.0, seconds))
        return _one(service, consumers, jobs, seconds), few


def allow_files(count: int) -> None:
    """Let this process and its children open *count* files, as far as the system allows it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))


def _one(service: Service, consumers: int, jobs: int, seconds: float) -> Width:
    with ManyConsumers(service.endpoint, service.authkey, consumers) as many:
        many.serve(min(1.0, seconds))
        spent, idle = _spent(service, lambda: many.serve(seconds))
        resident = resident_bytes(service.manager.pid)
        messages = statistics.mean(_woken(service, many) for _ in range(_SINGLES))
        rates, costs = zip(*(_active(service, many, jobs) for _ in range(3)), strict=True)
    service.wait_for_consumers(0)
    return Width(
        consumers,
        spent / idle * 100,
        resident,
        statistics.median(rates),
        statistics.median(costs),
        messages,
    )


def _woken(service: Service, many: ManyConsumers) -> int:
    """Submit one job; return how many messages consumers got until no more came."""
    before = many.messages
    service.client.submit(TASK, 1)
    many.serve(_PATIENCE_SECONDS, jobs=1)
    many.serve(0.02)
    return many.messages - before


def _active(service: Service, many: ManyConsumers, jobs: int) -> tuple[float, float]:
    """Return the jobs a second, and the manager's processor time for each, of *jobs* jobs."""

    def work() -> float:
        started = time.monotonic()
        service.submit(tasks.same, range(jobs), "default")
        many.serve(_PATIENCE_SECONDS, jobs=jobs)
        return time.monotonic() - started

    spent, taken = _spent(service, work)
    return jobs / taken, spent / jobs


def _spent(service: Service, work: Callable[[], float]) -> tuple[float, float]:
    """Return the manager's processor time while *work* runs, and the value of *work*."""
    before = cpu_seconds([service.manager.pid])
    taken = work()
    return cpu_seconds([service.manager.pid]) - before, taken
