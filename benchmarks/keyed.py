"""The manager's cost of waiting jobs that each have an idempotency key, or a due time of their own.

They are submitted as by `svc submit --from`. Then the manager is killed, and another one starts on the
journal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from benchmarks.processes import resident_bytes
from benchmarks.systems import Service
from svc.client.specs import JobSpec, Options

_TASK = "benchmarks.tasks:same"
_CALL = 10_000
_DELAY_SECONDS = 3600.0
_OPTIONS = Options(queue="deep")
_SHAPES: dict[str, Callable[[int], Options]] = {
    "with a key each": lambda number: replace(_OPTIONS, key=f"nightly-2026-11-22-{number:07}"),
    "with a delay of its own each": lambda number: replace(_OPTIONS, delay=_DELAY_SECONDS + number / 1000),
    "with neither": lambda number: _OPTIONS,
}


@dataclass(frozen=True)
class Keyed:
    """The figures of jobs of one shape.

    Attributes:
        shape: the property that each job has.
        each: bytes that the manager had resident for each job, after all were submitted.
        recovered: bytes that a new manager had resident for each job.
        recovery: seconds from the start of that manager until it had answered a call.
    """

    shape: str
    each: float
    recovered: float
    recovery: float


def measure(durability: str, jobs: int) -> Iterator[Keyed]:
    """Yield the figures of *jobs* jobs of each shape, compared with a manager without jobs."""
    for shape, options in _SHAPES.items():
        with Service(durability, "--max-queue", str(2 * jobs), consumers=0) as service:
            service.client.stats()
            empty = resident_bytes(service.manager.pid)
            _fill(service, jobs, options)
            full = resident_bytes(service.manager.pid)
            taken = service.replace_manager()
            again = resident_bytes(service.manager.pid)
            yield Keyed(shape, (full - empty) / jobs, (again - empty) / jobs, taken)


def _fill(service: Service, jobs: int, options: Callable[[int], Options]) -> None:
    for first in range(0, jobs, _CALL):
        numbers = range(first, min(jobs, first + _CALL))
        service.client.submit_many(_TASK, [JobSpec(_TASK, (each,), {}, options(each)) for each in numbers])
