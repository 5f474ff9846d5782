"""What a manager spends on very many jobs that tell their progress and leave checkpoints."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks import kinds
from benchmarks.processes import parts_cpu, processor_clock
from benchmarks.systems import PROCESSES, Service, task_name


@dataclass(frozen=True)
class Reported:
    """The figures of one phase.

    Attributes:
        name: what the jobs do.
        share: the share of a core that the manager used.
        consumers: that of the worker, its supervisor included.
    """

    name: str
    share: float
    consumers: float


def measure(durability: str, jobs: int, seconds: float) -> Iterator[Reported]:
    """Yield the figures of *seconds* with *jobs* jobs that run: silent ones, and those that report."""
    for name, task in (("silent", kinds.wait), ("progress", kinds.tell), ("both", kinds.report)):
        with Service(durability, consumers=0) as service:
            service.worker = service.start_worker(PROCESSES, "--tasks", "benchmarks.kinds")
            service.wait_for_consumers(PROCESSES)
            service.client.submit_many(task_name(task), [(3600.0,)] * jobs)
            while sum(queue.leased for queue in service.client.stats().queues) < jobs:
                time.sleep(0.1)
            time.sleep(2.0)  # to be past the start
            clock = processor_clock(service.manager.pid)
            with parts_cpu(service.pids()) as spent:
                used, started = clock(), time.monotonic()
                time.sleep(seconds)
                used, taken = clock() - used, time.monotonic() - started
            yield Reported(name, used / taken, spent["consumers"] / taken)
            service.worker.kill()
