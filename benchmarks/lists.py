"""The rate of jobs that do nothing, by the number that one call of their task gets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks import kinds
from benchmarks.processes import parts_cpu
from benchmarks.systems import PROCESSES, Service

#: The tasks, by the names of their rows, and the share of the jobs that each runs.
KINDS = (
    ("no batch", kinds.plain, 1.0),
    ("batch=1", kinds.listed_alone, 0.1),
    ("batch=100", kinds.listed, 1.0),
)


@dataclass(frozen=True)
class Listed:
    """The figures of one kind of task.

    Attributes:
        name: the kind.
        rate: jobs a second, from the submit to the last result.
        cpu: processor time in seconds for each job, by part.
    """

    name: str
    rate: float
    cpu: dict[str, float]


def measure(durability: str, jobs: int) -> Iterator[Listed]:
    """Yield the figures of *jobs* of each kind, on four consumers that have run some before."""
    with Service(durability, consumers=0) as service:
        service.worker = service.start_worker(PROCESSES, "--tasks", "benchmarks.kinds")
        service.wait_for_consumers(PROCESSES)
        for name, function, share in KINDS:
            count = int(jobs * share)
            for _ in service.all(function, range(count // 10)):
                pass
            with parts_cpu(service.pids()) as spent:
                started = time.monotonic()
                for _ in service.all(function, range(count)):
                    pass
                taken = time.monotonic() - started
            yield Listed(name, count / taken, {part: seconds / count for part, seconds in spent.items()})
