"""Many coroutines that wait at once in one consumer."""

from __future__ import annotations

import time
from dataclasses import dataclass

from benchmarks import kinds
from benchmarks.processes import parts_cpu
from benchmarks.systems import Service


@dataclass(frozen=True)
class Waited:
    """The figures of one run.

    Attributes:
        seconds: from the submit to the last result.
        cpu: processor time in seconds, by part.
    """

    seconds: float
    cpu: dict[str, float]


def measure(durability: str, jobs: int) -> Waited:
    """Run *jobs* that wait for one second each, on one consumer that has run one before."""
    with Service(durability, consumers=0) as service:
        service.worker = service.start_worker(1, "--tasks", "benchmarks.kinds")
        service.one(kinds.wait, 0.0)
        with parts_cpu(service.pids()) as spent:
            started = time.monotonic()
            for _ in service.all(kinds.wait, [1.0] * jobs):
                pass
            seconds = time.monotonic() - started
        return Waited(seconds, dict(spent))
