"""What a manager spends on very many jobs that tell their progress and leave checkpoints."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks import kinds
from benchmarks.processes import parts_cpu, processor_clock
from benchmarks.systems import PROCESSES, Service, task_name
from svc import Job
from svc.domain.job_view import Progress


@dataclass(frozen=True)
class Reported:
    """The figures of one phase.

    Attributes:
        name: what the jobs do.
        share: the share of a core that the manager used.
        consumers: that of the worker, its supervisor included.
        rates: how often each job has told its progress, a second, by what the manager has heard.
    """

    name: str
    share: float
    consumers: float
    rates: list[float]


def measure(durability: str, jobs: int, seconds: float) -> Iterator[Reported]:
    """Yield the figures of *seconds* with *jobs* jobs that run: silent ones, and those that report."""
    for name, task in (("silent", kinds.wait), ("progress", kinds.tell), ("both", kinds.report)):
        with Service(durability, consumers=0) as service:
            service.worker = service.start_worker(PROCESSES, "--tasks", "benchmarks.kinds")
            service.wait_for_consumers(PROCESSES)
            submitted = service.client.submit_many(task_name(task), [(3600.0,)] * jobs)
            while sum(queue.leased for queue in service.client.stats().queues) < jobs:
                time.sleep(0.1)
            time.sleep(2.0)  # to be past the start
            before = _heard(submitted)
            clock = processor_clock(service.manager.pid)
            with parts_cpu(service.pids()) as spent:
                used, started = clock(), time.monotonic()
                time.sleep(seconds)
                used, taken = clock() - used, time.monotonic() - started
            rates = _rates(before, _heard(submitted))
            yield Reported(name, used / taken, spent["consumers"] / taken, rates)
            service.worker.kill()


def _heard(jobs: Sequence[Job]) -> list[Progress | None]:
    """Return the last report of progress of each job that the manager has heard."""
    return [job.progress() for job in jobs]


def _rates(before: Sequence[Progress | None], after: Sequence[Progress | None]) -> list[float]:
    """Return the reports of each job a second. They number themselves: the manager hears of the last ones."""
    return [_rate(*pair) for pair in zip(before, after, strict=True)]


def _rate(early: Progress | None, late: Progress | None) -> float:
    if early is None or late is None or late.at == early.at:
        return 0.0
    return (late.done - early.done) / (late.at - early.at)
