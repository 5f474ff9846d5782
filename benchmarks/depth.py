"""A deep queue: the cost of many waiting jobs, some of them with priorities and delays.

Jobs are submitted over the network before there is any consumer: a tenth of them with a delay of an hour, the
others with three priorities. Then four consumers take jobs from that backlog for a while.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

from benchmarks.processes import cpu_seconds, peak_bytes, resident_bytes
from benchmarks.systems import PROCESSES, Service, end

#: The backlog with which others are compared.
SHALLOW = 10_000
#: Jobs of one call to submit, so that both backlogs have chunks of the same size.
_CALL = 10_000
_DELAY_SECONDS = 3600.0
_PRIORITIES = (0, 1, 2)
_LOOK_SECONDS = 0.01
#: How often jobs are taken from the backlog; it is refilled each time.
_REPEATS = 5
_PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Depth:
    """The figures of one backlog.

    Attributes:
        submit_rate: jobs a second that were accepted while it was built.
        rate: jobs a second that four consumers took from it and ended; the median of some repeats.
        manager_seconds: processor time of the manager for each of these jobs; the mean.
        peak: the most bytes that the manager had resident until then.
        longest_turn: seconds of the manager's longest turn until then.
        recovery: seconds from the start of a manager on that journal until it served.
        recovered: bytes that this manager had resident then.
    """

    submit_rate: float
    rate: float
    manager_seconds: float
    peak: int
    longest_turn: float
    recovery: float
    recovered: int


def measure(durability: str, waiting: int, taken: int) -> Depth:
    """Return the figures of a backlog in which *waiting* jobs are left each time that *taken* are done."""
    room = str(2 * (waiting + taken + _CALL))
    with Service(durability, "--max-queue", room, consumers=0) as service:
        # Delayed jobs cannot be taken, so more jobs are needed.
        jobs = waiting + taken + taken // 9 + _CALL
        started = time.perf_counter()
        _fill(service, jobs)
        submit_rate = jobs / (time.perf_counter() - started)
        rates, spent = [], 0.0
        for repeat in range(_REPEATS):
            if repeat:
                _fill(service, taken + taken // 9)
            before = cpu_seconds([service.manager.pid])
            worker = service.start_worker(PROCESSES, "--queues", "deep")
            rates.append(_drain_rate(service, taken))
            spent += cpu_seconds([service.manager.pid]) - before
            end(worker)
        peak, turn = peak_bytes(service.manager.pid), longest_turn(service)
        recovery = _recovery_seconds(service) if durability != "memory" else 0.0
        return Depth(
            submit_rate,
            statistics.median(rates),
            spent / (taken * _REPEATS),
            peak,
            turn,
            recovery,
            resident_bytes(service.manager.pid),
        )


def longest_turn(service: Service) -> float:
    """Return the seconds of the longest turn that the manager's loop has taken."""
    name = "svc_manager_longest_turn_seconds "
    return next(
        float(line[len(name) :]) for line in service.client.metrics().splitlines() if line.startswith(name)
    )


def _fill(service: Service, jobs: int) -> None:
    """Submit *jobs* jobs in several calls: every tenth with a delay, the others in alternating priorities."""
    numbers = iter(range(0, jobs, _CALL))
    for place, first in enumerate(numbers):
        delay = _DELAY_SECONDS if place % 10 == 9 else 0.0
        priority = _PRIORITIES[place % len(_PRIORITIES)]
        submitter = service.client.options(queue="deep", priority=priority, delay=delay)
        submitter.submit_many(
            "benchmarks.tasks:same", ((each,) for each in range(first, min(jobs, first + _CALL)))
        )


def _drain_rate(service: Service, jobs: int) -> float:
    """Return the jobs a second that consumers end, after the first tenth of *jobs* until all are done."""
    done = done_jobs(service)
    begun, first = _when_done(service, done + jobs // 10)
    ended, last = _when_done(service, done + jobs)
    return (last - first) / (ended - begun)


def _when_done(service: Service, jobs: int) -> tuple[float, int]:
    """Wait until *jobs* jobs are done; return the time then, and how many were done.

    Raises:
        TimeoutError: they were not done in time.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        done = done_jobs(service)
        now = time.monotonic()
        if done >= jobs:
            return now, done
        if now > deadline:
            raise TimeoutError(f"only {done} of {jobs} jobs were done within {_PATIENCE_SECONDS:g} s")
        time.sleep(_LOOK_SECONDS)


def done_jobs(service: Service) -> int:
    """Return how many jobs have succeeded and are still kept."""
    return sum(each.succeeded for each in service.client.stats().queues)


def _recovery_seconds(service: Service) -> float:
    """Kill the manager; return the seconds that a new one takes from its start until it serves."""
    service.manager.kill()
    service.manager.wait()
    started = time.perf_counter()
    service.start_manager()
    return time.perf_counter() - started
