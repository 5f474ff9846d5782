"""The rate of short jobs while consumers are replaced after each few of them, beside the same without."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks import tasks
from benchmarks.systems import PROCESSES, Service, end

#: Jobs after which a consumer is replaced.
JOBS_EACH = 50
_LOOK_SECONDS = 0.01


@dataclass(frozen=True)
class Recycled:
    """The figures of one run.

    Attributes:
        name: the kind of worker.
        rate: jobs a second.
        fewest: the smallest number of consumers that the manager had at any look.
    """

    name: str
    rate: float
    fewest: int


def measure(durability: str, jobs: int) -> Iterator[Recycled]:
    """Yield the figures of *jobs* sleeps of 20 ms without and with the recycling of consumers."""
    with Service(durability, consumers=0) as service:
        for name, flags in (
            ("no recycling", ()),
            (f"--recycle-jobs {JOBS_EACH}", ("--recycle-jobs", str(JOBS_EACH))),
        ):
            worker = service.start_worker(PROCESSES, *flags)
            service.wait_for_consumers(PROCESSES)
            with _looks(service) as counts:
                started = time.monotonic()
                for _ in service.all(tasks.doze, range(jobs)):
                    pass
                taken = time.monotonic() - started
            yield Recycled(name, jobs / taken, min(counts))
            end(worker)
            service.wait_for_consumers(0)


@contextmanager
def _looks(service: Service) -> Iterator[list[int]]:
    """Collect the numbers of consumers that the manager has, meanwhile."""
    counts = [service.client.stats().consumers]
    over = threading.Event()

    def look() -> None:
        while not over.wait(_LOOK_SECONDS):
            counts.append(service.client.stats().consumers)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield counts
    finally:
        over.set()
        thread.join()
