"""The manager's cost of waiting jobs that each have an idempotency key, or a due time of their own.

They are submitted by `svc submit --from`, from a file with one job a line. Then the manager is killed, and
another one starts on the journal.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.processes import resident_bytes
from benchmarks.systems import Service, environment

_TASK = "benchmarks.tasks:same"
_DELAY_SECONDS = 3600.0
#: How to make the fields of the line of a job in addition to the usual ones.
_SHAPES: dict[str, Callable[[int], dict[str, object]]] = {
    "with a key each": lambda number: {"key": f"nightly-2026-11-22-{number:07}"},
    "with a delay of its own each": lambda number: {"delay": _DELAY_SECONDS + number / 1000},
    "with neither": lambda number: {},
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
    for shape, fields in _SHAPES.items():
        with Service(durability, "--max-queue", str(2 * jobs), consumers=0) as service:
            source = service.folder / "jobs.ndjson"
            _write(source, jobs, fields)
            service.client.stats()
            empty = resident_bytes(service.manager.pid)
            _submit(service, source, jobs)
            full = resident_bytes(service.manager.pid)
            taken = service.replace_manager()
            again = resident_bytes(service.manager.pid)
            yield Keyed(shape, (full - empty) / jobs, (again - empty) / jobs, taken)


def _write(path: Path, jobs: int, fields: Callable[[int], dict[str, object]]) -> None:
    with path.open("w", encoding="utf-8") as file:
        for number in range(jobs):
            line = {"task": _TASK, "args": [number], "queue": "deep", **fields(number)}
            file.write(json.dumps(line) + "\n")


def _submit(service: Service, source: Path, jobs: int) -> None:
    """Submit the jobs in *source*.

    Raises:
        RuntimeError: the command did not print the id of each job.
    """
    command = [sys.executable, "-m", "svc", "submit", "--from", str(source), "--manager", service.address]
    ended = subprocess.run(
        [*command, "--authkey-file", str(service.keyfile)],
        env=environment(),
        stdout=subprocess.PIPE,
        check=True,
    )
    if (ids := len(set(ended.stdout.split()))) != jobs:
        raise RuntimeError(f"svc submit --from printed {ids:,} ids for {jobs:,} jobs")
