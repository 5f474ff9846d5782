"""Pauses of the manager's loop at full load, with checkpoints, retention and a backup at the same time.

A probe also measures the longest sync of one page on the journal's disk: a turn that commits at that moment
cannot be shorter.
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from benchmarks import tasks
from benchmarks.depth import longest_turn
from benchmarks.systems import Service

#: Jobs of one call at most; calls alternate between jobs without content and jobs with 1 KiB each way.
_CALL = 20_000
_KIBIBYTE = "x" * 1024
_PROBE_SECONDS = 0.02


@dataclass(frozen=True)
class Pauses:
    """The figures of one run.

    Attributes:
        rate: jobs a second, from end to end.
        forgotten: jobs that retention removed meanwhile.
        longest_turn: seconds of the manager's longest turn.
        longest_sync: seconds of the probe's longest sync on the same disk, with one sync each 20 ms.
    """

    rate: float
    forgotten: int
    longest_turn: float
    longest_sync: float


def measure(durability: str, jobs: int, kept: int) -> Pauses:
    """Return the figures of *jobs* jobs: *kept* finished ones are kept, and a backup is made half-way."""
    call = min(_CALL, kept)  # a client that is late must find the result of each job
    with Service(durability, "--retain-count", str(kept)) as service, _Probe(service.folder) as probe:
        started = time.perf_counter()
        for done in range(0, jobs, call):
            content = _KIBIBYTE if done // call % 2 else ""
            for _ in service.all(tasks.same, [content] * min(call, jobs - done)):
                pass
            if durability != "memory" and done <= jobs // 2 < done + call:
                service.client.backup("half-way")
        taken = time.perf_counter() - started
        left = sum(queue.succeeded for queue in service.client.stats().queues)
        return Pauses(jobs / taken, jobs - left, longest_turn(service), probe.longest)


class _Probe:
    """Writes and syncs a page in a folder again and again within a `with` block."""

    def __init__(self, folder: Path) -> None:
        """Use *folder*."""
        self._path = folder / "probe"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="probe")
        #: Seconds of the longest sync so far.
        self.longest = 0.0

    def __enter__(self) -> Self:
        """Start the probe."""
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop the probe."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR)
        try:
            while not self._stop.wait(_PROBE_SECONDS):
                os.pwrite(descriptor, os.urandom(4096), 0)
                started = time.perf_counter()
                os.fdatasync(descriptor)
                self.longest = max(self.longest, time.perf_counter() - started)
        finally:
            os.close(descriptor)
