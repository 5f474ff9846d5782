"""Jobs with large arguments and results: bytes a second from end to end, and the manager's memory."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks import tasks
from benchmarks.processes import cpu_seconds, peak_bytes
from benchmarks.systems import Service


@dataclass(frozen=True)
class Large:
    """The figures of one run.

    Attributes:
        rate: bytes of arguments and results together, a second.
        peak: the most bytes that the manager had resident.
        manager_seconds: its processor time for each MiB of arguments and results.
        disk_rate: bytes a second that the disk wrote just before, in pieces of 16 MiB, each synced.
    """

    rate: float
    peak: int
    manager_seconds: float
    disk_rate: float


def measure(durability: str, jobs: int, size: int) -> Large:
    """Return the figures of *jobs* jobs with *size* bytes of arguments and of results, on a new service."""
    # The limit counts the encoded arguments, which are a few bytes longer than their content.
    with Service(durability, "--max-job-bytes", str(size + 65536)) as service:
        disk_rate = disk_bytes_per_second(service)
        manager = [service.manager.pid]
        before, started = cpu_seconds(manager), time.perf_counter()
        moved = sum(2 * len(str(result)) for result in service.all(tasks.same, _arguments(jobs, size)))
        taken = time.perf_counter() - started
        if moved != 2 * jobs * size:
            raise RuntimeError(f"{moved} bytes came and went, not {2 * jobs * size}")
        spent = cpu_seconds(manager) - before
        return Large(moved / taken, peak_bytes(service.manager.pid), spent / (moved / 2**20), disk_rate)


def disk_bytes_per_second(service: Service, pieces: int = 8, size: int = 16 * 2**20) -> float:
    """Return the bytes a second of plain writes to the journal's disk, each of them synced."""
    path, piece = service.folder / "probe", bytes(size)
    started = time.perf_counter()
    with path.open("wb", buffering=0) as file:
        for _ in range(pieces):
            file.write(piece)
            os.fdatasync(file.fileno())
    taken = time.perf_counter() - started
    path.unlink()
    return pieces * size / taken


def _arguments(jobs: int, size: int) -> Iterator[str]:
    content = "x" * size
    return (content for _ in range(jobs))
