"""The measures. Every system is measured with this same code: in this process or in a peer's environment."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from benchmarks import tasks
from benchmarks.figures import TRIP_SHARES, below
from benchmarks.processes import parts_cpu, resident_bytes

SEED_JOBS = 40


class System(Protocol):
    """A system that runs functions in other processes."""

    def all(self, function: Callable[[Any], Any], arguments: Iterable[Any]) -> Iterable[Any]:
        """Submit *function* for each of *arguments*; then return an iterable of the results, in any order."""

    def one(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """Run one call and return its result."""

    def pids(self) -> dict[str, list[int]]:
        """Return the process ids of the system by part, without the caller's own."""


class RunsPrograms(Protocol):
    """A system that runs programs, too."""

    def programs(self, count: int) -> float:
        """Return how many times a second it runs `true`, for *count* of them."""


def measure(system: System, jobs: int, trips: int, naps: int = SEED_JOBS) -> dict[str, float]:
    """Do each measure once; return `jobs` and `trips` (how many) and the figures.

    These are `jobs/s` from end to end, `submits/s` until the client's last call has returned, each part's
    processor time for 1,000 jobs (`client ms`, …) and the memory of its largest process (`manager MiB`, …),
    the round trip (`p50 ms`, `p99 ms`, `p99.9 ms`), and `textbook s`, the time for *naps* jobs of 0.1 s.

    Raises:
        RuntimeError: the results are not those of the jobs.
    """
    figures = {"jobs": float(jobs), "trips": float(trips), **_in_bulk(system, jobs)}
    taken = [_round_trip(system) for _ in range(trips)]
    figures |= {f"{name} ms": below(taken, share) * 1e3 for name, share in TRIP_SHARES.items()}
    figures["textbook s"] = _textbook_seconds(system, naps)
    for part, pids in system.pids().items():
        figures[f"{part} MiB"] = max(map(resident_bytes, pids), default=0) / 2**20
    return figures


def seconds_for_all(system: System, jobs: int) -> tuple[float, float]:
    """Return the times from the first submit of *jobs* no-op jobs to the last submit and the last result."""
    started = time.perf_counter()
    pending = system.all(tasks.same, range(jobs))
    submitted = time.perf_counter() - started
    results = list(pending)
    taken = time.perf_counter() - started
    if sorted(results) != list(range(jobs)):
        raise RuntimeError(f"{len(results)} results for {jobs} jobs, or the wrong ones")
    return submitted, taken


def rate_of(system: System, function: Callable[[Any], Any], arguments: list[Any]) -> float:
    """Return the calls of *function* a second, from the first submit to the last result.

    Raises:
        RuntimeError: there are fewer or more results than jobs.
    """
    started = time.perf_counter()
    count = sum(1 for _ in system.all(function, arguments))
    if count != len(arguments):
        raise RuntimeError(f"{count} results for {len(arguments)} jobs")
    return count / (time.perf_counter() - started)


def sleep_times(system: System, pauses: list[float]) -> list[tuple[float, float]]:
    """Run a sleep for each of *pauses*; return when each began and ended, in seconds since the submit."""
    submitted = time.monotonic()
    times = sorted(tuple(each) for each in system.all(tasks.stamped, pauses))
    return [(began - submitted, ended - submitted) for began, ended, _ in times]


def _in_bulk(system: System, jobs: int) -> dict[str, float]:
    with parts_cpu(system.pids()) as spent:
        submitted, taken = seconds_for_all(system, jobs)
    rates = {"jobs/s": jobs / taken, "submits/s": jobs / submitted}
    return rates | {f"{part} ms": seconds / jobs * 1e6 for part, seconds in spent.items()}


def _round_trip(system: System) -> float:
    started = time.perf_counter()
    system.one(tasks.same, 1)
    return time.perf_counter() - started


def _textbook_seconds(system: System, naps: int) -> float:
    started = time.perf_counter()
    results = list(system.all(tasks.nap, range(naps)))
    taken = time.perf_counter() - started
    if sorted(results) != [number * number for number in range(naps)]:
        raise RuntimeError(f"the results of the textbook program are wrong: {results}")
    return taken
