"""The measures: each takes the systems, does its work once, and notes its figures.

One call of `one_round` does each measure once. With several rounds, one after the other, changes of the
machine's speed affect all systems alike.
"""

from __future__ import annotations

import concurrent.futures
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks import flood, start, stock, tasks
from benchmarks.figures import TRIP_SHARES, Figures, below
from benchmarks.processes import cpu_seconds, parts_cpu, processor_clock, resident_bytes
from benchmarks.systems import Executor, Pool, Service, StockServer, System
from svc import Executor as OurExecutor

SEED_JOBS = 40
_KIBIBYTE = "x" * 1024


@dataclass(frozen=True)
class Sizes:
    """The amounts of work in one round."""

    jobs: int = 20_000
    round_trips: int = 1_000
    items: int = 2_000
    connects: int = 20
    naps: int = SEED_JOBS
    flood_seconds: float = 5.0
    starts: int = 5


FULL = Sizes()
QUICK = Sizes(jobs=10_000, round_trips=300, items=800, starts=3)
SMOKE = Sizes(jobs=200, round_trips=20, items=40, connects=3, naps=4, flood_seconds=0.2, starts=1)


@dataclass(frozen=True)
class Field:
    """All systems that take part."""

    services: tuple[Service, ...]
    #: The first of them once more, without the record of each attempt in the log.
    quiet: Service
    pool: Pool
    executor: Executor
    server: StockServer

    def clients(self) -> Iterator[tuple[str, concurrent.futures.Executor]]:
        """Yield each executor with the name of its system; ours is closed before the next one."""
        for service in self.services:
            with OurExecutor(service.address, authkey_file=service.keyfile) as ours:
                yield service.name, ours
        yield self.executor.name, self.executor.pool

    @property
    def systems(self) -> tuple[System, ...]:
        """The systems that run functions."""
        return (*self.services, self.pool, self.executor)

    @property
    def servers(self) -> tuple[stock.Server, ...]:
        """The systems that stock clients can use."""
        return (*self.services, self.server)


Measure = Callable[[Field, Sizes, Figures], None]


def end_to_end(who: Field, sizes: Sizes, figures: Figures) -> None:
    """Submit no-op jobs at once and take all results; see what that costs each part."""
    for system in (who.quiet, *who.systems):
        with parts_cpu(system.pids()) as spent:
            rate = _rate(system, list(range(sizes.jobs)))
        figures.note("no-op jobs, end to end", "jobs/s", system.name, rate)
        thousands = sizes.jobs / 1000
        for part in ("client", "manager", "consumers"):
            if part in spent:
                measure = f"CPU of {part}, 1,000 jobs"
                figures.note(measure, "ms", system.name, spent[part] / thousands * 1e3)


def kibibytes(who: Field, sizes: Sizes, figures: Figures) -> None:
    """Do the same as `end_to_end`, with 1 KiB of arguments and of results; compare the multiples of the Pool.

    That at 1 KiB should be no less than that for no-op jobs. (A rate beside the system's own rate of no-op
    jobs is better, the slower these are.) Each system does both kinds one after the other, as many of each.
    """
    rates: dict[str, tuple[float, float]] = {}
    for system in who.systems:
        small = _rate(system, list(range(sizes.jobs)))
        rates[system.name] = small, _rate(system, [_KIBIBYTE] * sizes.jobs)
        figures.note("1 KiB jobs, end to end", "jobs/s", system.name, rates[system.name][1])
    of_pool = rates[who.pool.name]
    for service in who.services:
        small, large = (rate / pool for rate, pool in zip(rates[service.name], of_pool, strict=True))
        figures.note("multiple of the Pool, no-op jobs", "x", service.name, small)
        figures.note("multiple of the Pool, 1 KiB jobs", "x", service.name, large)
        figures.note("multiple at 1 KiB beside that of no-op", "ratio", service.name, large / small)


def submit_alone(who: Field, sizes: Sizes, figures: Figures) -> None:
    """Submit to a queue that no worker serves."""
    for service in who.services:
        started = time.perf_counter()
        service.submit(tasks.same, range(sizes.jobs), "parked")
        rate = sizes.jobs / (time.perf_counter() - started)
        figures.note("submit alone", "jobs/s", service.name, rate)


def round_trip(who: Field, sizes: Sizes, figures: Figures) -> None:
    """Submit a job and wait for its result, repeatedly."""
    for system in who.systems:
        taken = [_seconds(system) for _ in range(sizes.round_trips)]
        for name, share in TRIP_SHARES.items():
            figures.note(f"round trip {name}", "ms", system.name, below(taken, share) * 1e3)


def textbook(who: Field, sizes: Sizes, figures: Figures) -> None:
    """Run 40 jobs of 0.1 s on 4 consumers, which takes 1 s at best."""
    for system in who.systems:
        started = time.perf_counter()
        for _ in system.all(tasks.nap, range(sizes.naps)):
            pass
        figures.note("textbook: 40 jobs of 0.1 s", "s", system.name, time.perf_counter() - started)


def stock_clients(who: Field, sizes: Sizes, figures: Figures) -> None:
    """Put, get and acknowledge items with clients that have only the stdlib.

    The processor time of the server tells more than the rate if other programs use the cores, too.
    """
    for server in who.servers:
        spent = processor_clock(server.pid)
        before = spent()
        one = stock.one_client(server, sizes.items // 2)
        figures.note("stock put+get+task_done, 1 client", "items/s", server.name, one)
        alone, before = (spent() - before) / (sizes.items // 2), spent()
        figures.note("stock, 1 client: server's processor time", "ms", server.name, alone * 1e3)
        many = stock.many_clients(server, sizes.items)
        figures.note("stock put+get+task_done, 4+4 clients", "items/s", server.name, many)
        together = (spent() - before) / sizes.items
        figures.note("stock, 4+4 clients: server's processor time", "ms", server.name, together * 1e3)
        connect = stock.connect_seconds(server, sizes.connects)
        figures.note("stock connect + first call", "ms", server.name, connect * 1e3)


def executor(who: Field, sizes: Sizes, figures: Figures) -> None:
    """Call `submit` of an executor for one job after the other, then take all results."""
    for name, pool in who.clients():
        pool.submit(tasks.same, 0).result()  # connects, and starts its threads
        started = time.perf_counter()
        futures = [pool.submit(tasks.same, number) for number in range(sizes.jobs)]
        submitted = time.perf_counter() - started
        for each in futures:
            each.result()
        taken = time.perf_counter() - started
        figures.note("Executor.submit one by one, end to end", "jobs/s", name, sizes.jobs / taken)
        figures.note("Executor.submit one by one, the calls alone", "jobs/s", name, sizes.jobs / submitted)


def starts(who: Field, sizes: Sizes, figures: Figures) -> None:
    """Start commands, and a worker with four consumers."""
    service = who.services[0]
    for _ in range(sizes.starts):
        for name, arguments in start.commands(service).items():
            taken = start.command_seconds(arguments)
            figures.note("start to end of a command", "ms", name, taken * 1e3)
    figures.note("worker of 4 consumers, start to ready", "s", service.name, start.worker_seconds(service))


def memory(who: Field, sizes: Sizes, figures: Figures) -> None:
    """Note the resident memory after all measures: of the manager, and of the largest other process."""
    for system in who.systems:
        for part, pids in system.pids().items():
            size = max(map(resident_bytes, pids), default=0)
            measure = "RSS of manager" if part == "manager" else "RSS of largest consumer"
            figures.note(measure, "MiB", system.name, size / 2**20)


def during_flood(who: Field, sizes: Sizes, figures: Figures) -> None:
    """Run jobs and connect repeatedly: without attackers, with a thousand silent and slow peers, and without.

    The rate under attack is compared with the mean of both phases without, since the load by other users of
    the machine changes.
    """
    for service in who.services:
        for origin, sources in flood.SOURCES.items():
            before = _phase(service, sizes, figures, f"calm around {origin}")
            with flood.flooded(service.endpoint, sources) as attackers:
                started, cpu = time.monotonic(), cpu_seconds(attackers)
                rate = _phase(service, sizes, figures, origin)
                share = (cpu_seconds(attackers) - cpu) / (time.monotonic() - started)
            figures.note("flood: CPU of the attackers", "of a core", f"{service.name}, {origin}", share)
            after = _phase(service, sizes, figures, f"calm around {origin}")
            against = rate / statistics.mean((before, after))
            figures.note("flood: jobs against calm", "ratio", f"{service.name}, {origin}", against)


def _phase(service: Service, sizes: Sizes, figures: Figures, origin: str) -> float:
    """Return the jobs a second, end to end, while honest clients connect; note the figures of both."""
    name = f"{service.name}, {origin}"
    manager = service.pids()["manager"]
    jobs = 0
    with flood.connects(service.endpoint, service.authkey) as visits:
        started, cpu = time.monotonic(), cpu_seconds(manager)
        while jobs == 0 or time.monotonic() < started + sizes.flood_seconds:
            _rate(service, list(range(sizes.jobs)))
            jobs += sizes.jobs
        rate = jobs / (time.monotonic() - started)
        spent = (cpu_seconds(manager) - cpu) / jobs * 1e6
    figures.note("flood: no-op jobs", "jobs/s", name, rate)
    figures.note("flood: CPU of manager, 1,000 jobs", "ms", name, spent)
    figures.note("flood: connect + call p50", "ms", name, visits.part(0.5) * 1e3)
    figures.note("flood: connect + call p99", "ms", name, visits.part(0.99) * 1e3)
    figures.note("flood: clients not served", "of all", name, visits.refused / visits.count)
    return rate


#: All measures, in the order of the table.
MEASURES: dict[str, Measure] = {
    "noop": end_to_end,
    "1kib": kibibytes,
    "submit": submit_alone,
    "latency": round_trip,
    "executor": executor,
    "textbook": textbook,
    "stock": stock_clients,
    "start": starts,
    "memory": memory,
    "flood": during_flood,
}
#: The measures that run by default: without the one that takes a minute by itself.
USUAL = [name for name in MEASURES if name != "flood"]


def one_round(who: Field, sizes: Sizes, figures: Figures, chosen: list[str]) -> None:
    """Do all *chosen* measures once."""
    for name, measure in MEASURES.items():
        if name in chosen:
            measure(who, sizes, figures)


def _rate(system: System, arguments: list[object]) -> float:
    started = time.perf_counter()
    count = sum(1 for _ in system.all(tasks.same, arguments))
    if count != len(arguments):
        raise RuntimeError(f"{system.name} gave {count} results for {len(arguments)} jobs")
    return count / (time.perf_counter() - started)


def _seconds(system: System) -> float:
    started = time.perf_counter()
    system.one(tasks.same, 1)
    return time.perf_counter() - started
