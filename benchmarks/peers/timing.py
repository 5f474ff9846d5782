"""The three measures, the same code for every system: in this process or in a peer's environment."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from benchmarks import tasks

SEED_JOBS = 40


class System(Protocol):
    """Something that runs functions in other processes."""

    def all(self, function: Callable[[Any], Any], arguments: Iterable[Any]) -> Iterable[Any]:
        """Run *function* for each of *arguments*; return the results in any order."""

    def one(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """Run one call and return its result."""


def measure(system: System, jobs: int, trips: int, naps: int = SEED_JOBS) -> dict[str, float]:
    """Do each measure once; return `jobs` (how many), `jobs/s`, `p50 ms` and `seed s`.

    Raises:
        RuntimeError: the results are not those of the jobs.
    """
    return {
        "jobs": jobs,
        "jobs/s": jobs / seconds_for_all(system, jobs),
        "p50 ms": statistics.median(_round_trip(system) for _ in range(trips)) * 1e3,
        "seed s": _seed_seconds(system, naps),
    }


def seconds_for_all(system: System, jobs: int) -> float:
    """Return the time from the first submit of *jobs* no-op jobs to the last result at the client."""
    started = time.perf_counter()
    results = list(system.all(tasks.same, range(jobs)))
    taken = time.perf_counter() - started
    if sorted(results) != list(range(jobs)):
        raise RuntimeError(f"{len(results)} results for {jobs} jobs, or the wrong ones")
    return taken


def _round_trip(system: System) -> float:
    started = time.perf_counter()
    system.one(tasks.same, 1)
    return time.perf_counter() - started


def _seed_seconds(system: System, naps: int) -> float:
    started = time.perf_counter()
    results = list(system.all(tasks.nap, range(naps)))
    taken = time.perf_counter() - started
    if sorted(results) != [number * number for number in range(naps)]:
        raise RuntimeError(f"the seed's results are wrong: {results}")
    return taken
