"""Many workers: 64 simulated hosts of 8 consumers, each with connections of its own, and no work in the jobs.

The consumers are one process, that does for each message only the work that a consumer cannot avoid, so it
is the bound if the manager is not. Beside them, as many consumers take jobs from a list in Redis.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks import tasks
from benchmarks.figures import Figures
from benchmarks.many_consumers import ManyConsumers
from benchmarks.peers.redis_server import RedisServer
from benchmarks.processes import processor_clock
from benchmarks.proxy import Link
from benchmarks.redis_consumers import RedisConsumers
from benchmarks.systems import Service
from benchmarks.width import allow_files

_OTHER_FILES = 500
_PATIENCE_SECONDS = 120.0


@dataclass(frozen=True)
class Sizes:
    """The amounts of work.

    Attributes:
        delays: of the links, in seconds one way.
        hosts: workers that are simulated.
        consumers: of each.
        jobs: that are submitted in bulk.
        peers: whether the list in Redis is measured, too; anything but an empty tuple.
    """

    delays: tuple[float, ...] = (0.0, 0.010)
    hosts: int = 64
    consumers: int = 8
    jobs: int = 20_000
    peers: tuple[str, ...] = ("Redis",)


FULL = Sizes()
QUICK = Sizes(jobs=10_000)
SMOKE = Sizes(delays=(0.001,), hosts=3, jobs=400)


def measure(durability: str, sizes: Sizes, figures: Figures) -> None:
    """Do one round."""
    count = sizes.hosts * sizes.consumers
    allow_files(2 * count + _OTHER_FILES)
    title = f"no-op jobs on {sizes.hosts} hosts x {sizes.consumers} consumers"
    for delay in sizes.delays:
        place = f"{delay * 1e3:g} ms one way"
        rate, spent = _of_service(durability, sizes, delay)
        figures.note(title, "jobs/s", f"svc, {durability}, {place}", rate)
        figures.note("CPU of manager, 1,000 such jobs", "ms", f"svc, {durability}, {place}", spent * 1e6)
        if sizes.peers:
            rate, spent = _of_redis(sizes, delay)
            figures.note(title, "jobs/s", f"list in Redis, not synced, {place}", rate)
            figures.note("CPU of Redis, 1,000 such jobs", "ms", f"list in Redis, {place}", spent * 1e6)


def _of_service(durability: str, sizes: Sizes, delay: float) -> tuple[float, float]:
    count = sizes.hosts * sizes.consumers
    room = str(count + _OTHER_FILES)
    flags = "--max-connections", room, "--max-per-address", room
    with Service(durability, *flags, consumers=0) as service, _far(service.address, delay) as address:
        many = ManyConsumers(address, service.authkey, count, of_one_worker=sizes.consumers)
        with many:
            service.wait_for_consumers(count)

            def work() -> None:
                service.submit(tasks.same, range(sizes.jobs), "default")
                many.serve(_PATIENCE_SECONDS, jobs=sizes.jobs)

            many.serve(0.5)
            return _rate_and_cost(service.manager.pid, sizes.jobs, work)


def _of_redis(sizes: Sizes, delay: float) -> tuple[float, float]:
    count = sizes.hosts * sizes.consumers
    with (
        RedisServer() as redis,
        _far(redis.url.removeprefix("redis://"), delay) as address,
        RedisConsumers(address, count) as many,
    ):

        def work() -> None:
            many.submit(sizes.jobs)
            many.serve(_PATIENCE_SECONDS, sizes.jobs)

        return _rate_and_cost(redis.pid, sizes.jobs, work)


@contextmanager
def _far(address: str, delay: float) -> Iterator[tuple[str, int]]:
    with Link([address], delay) as link:
        host, _, port = link.addresses[0].rpartition(":")
        yield host, int(port)


def _rate_and_cost(pid: int, jobs: int, work: Callable[[], None]) -> tuple[float, float]:
    """Return the jobs a second of *work*, and the processor time of *pid* for each of its jobs."""
    clock = processor_clock(pid)
    started, spent = time.monotonic(), clock()
    work()
    return jobs / (time.monotonic() - started), (clock() - spent) / jobs
