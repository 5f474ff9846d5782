"""The replicated journal: three NATS servers on this machine keep the stream, beside the journal in a file.

Every server syncs each write. The servers, the manager, the consumers and the client share the cores.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryDirectory

from benchmarks import tasks
from benchmarks.bare_queue import BareQueue
from benchmarks.depth import done_jobs
from benchmarks.figures import Figures, below
from benchmarks.nats_cluster import nats_cluster
from benchmarks.processes import parts_cpu, resident_bytes
from benchmarks.systems import Service, until
from svc.broker.host import QueueHost
from svc.journal_address import StreamAddress, parse_stream
from svc.server.collector import collector_paused
from svc.server.journal.jetstream.opening import open_log
from svc.server.journal.jetstream.replication import Replication

STREAM, FILE = "svc, stream of 3 servers", "svc, fsync"
_MEBIBYTE = 2**20
_SHARES = {"p50": 0.5, "p99": 0.99}
#: Jobs of one call to submit.
_CALL = 20_000


@dataclass(frozen=True)
class Sizes:
    """The amounts of work.

    Attributes:
        jobs: no-op jobs from end to end.
        bare_jobs: the same of the bare queue, which is slower.
        trips: lone jobs whose latency is measured.
        waiting: jobs of the backlog, of the recoveries, and of those that are finished and forgotten.
        repeats: how often the three systems are measured in turn; the figures are medians.
    """

    jobs: int = 60_000
    bare_jobs: int = 10_000
    trips: int = 500
    waiting: int = 1_000_000
    repeats: int = 5


FULL = Sizes()
QUICK = Sizes(jobs=20_000, bare_jobs=5_000, trips=200, waiting=200_000, repeats=3)
SMOKE = Sizes(jobs=400, bare_jobs=100, trips=10, waiting=2_000, repeats=1)


def measure(sizes: Sizes, figures: Figures) -> None:
    """Do all measures on one cluster; those with a backlog have services of their own."""
    with nats_cluster() as servers:
        _compare(servers, sizes, figures)
        _finish(servers, sizes, figures)
        for name in (FILE, STREAM):
            with _service(servers if name == STREAM else None) as (service, address):
                _wait_behind_backlog(service, name, sizes, figures)
                if address is not None:
                    _recover(service, address, sizes, figures)


@contextmanager
def _service(servers: list[str] | None, *flags: str) -> Iterator[tuple[Service, StreamAddress | None]]:
    """Run a service whose journal is a new stream on *servers*, or a file; yield it and the stream."""
    room = ("--max-queue", "10000000", *flags)
    if servers is None:
        with Service("fsync", *room) as service:
            yield service, None
        return
    address = parse_stream(f"nats://{','.join(servers)}/benchmark{token_hex(4)}")
    with TemporaryDirectory(prefix="svc-benchmark-mirror-") as mirror:
        flags = ("--journal", str(address), "--mirror", f"{mirror}/mirror")
        with Service("fsync", *room, *flags) as service:
            yield service, address


def _compare(servers: list[str], sizes: Sizes, figures: Figures) -> None:
    """Run no-op jobs through each system in turn, and wait for lone jobs."""
    with _service(servers) as (stream, _), _service(None) as (file, _), BareQueue(servers) as bare:
        services = {STREAM: stream, FILE: file}
        for service in services.values():
            _rate(service, sizes.bare_jobs)
        for _ in range(sizes.repeats):
            rates = {bare.name: bare.rate(sizes.bare_jobs)}
            for name, service in services.items():
                with parts_cpu(service.pids()) as spent:
                    rates[name] = _rate(service, sizes.jobs)
                for part in ("manager", "consumers"):
                    figures.note(f"CPU of {part}, 1,000 jobs", "ms", name, spent[part] / sizes.jobs * 1e6)
                trips = _trips(service, sizes.trips)
                for share, part_of in _SHARES.items():
                    figures.note(f"round trip {share}", "ms", name, below(trips, part_of) * 1e3)
            for name, rate in rates.items():
                figures.note("no-op jobs, end to end", "jobs/s", name, rate)
            for other in (bare.name, FILE):
                figures.note("no-op jobs on the stream", "times", f"of {other}", rates[STREAM] / rates[other])


def _finish(servers: list[str], sizes: Sizes, figures: Figures) -> None:
    """Run many jobs, have all of them forgotten, and look at the size of the stream."""
    with _service(servers, "--retention", "1s") as (service, address):
        started, largest = time.perf_counter(), 0
        for first in range(0, sizes.waiting, _CALL):
            for _ in service.all(tasks.same, range(first, min(sizes.waiting, first + _CALL))):
                pass
            largest = max(largest, _stream_bytes(address))
        taken = time.perf_counter() - started
        until(lambda: not done_jobs(service))
        time.sleep(2.0)  # the last purge follows the last commit
        name = f"{sizes.waiting:,} jobs, finished and forgotten"
        figures.note("stream", "MiB", name, _stream_bytes(address) / _MEBIBYTE)
        figures.note("stream", "MiB", f"{name}, at most meanwhile", largest / _MEBIBYTE)
        figures.note("jobs that are forgotten after 1 s", "jobs/s", name, sizes.waiting / taken)


def _wait_behind_backlog(service: Service, name: str, sizes: Sizes, figures: Figures) -> None:
    """Wait for lone jobs, without other jobs and while many wait in another queue."""
    _trips(service, sizes.trips)
    before = _trips(service, sizes.trips)
    for first in range(0, sizes.waiting, _CALL):
        service.submit(tasks.same, range(first, min(sizes.waiting, first + _CALL)), "parked")
    beside = _trips(service, sizes.trips)
    behind = f"{name}, {sizes.waiting:,} jobs wait"
    for share, part_of in _SHARES.items():
        alone, loaded = below(before, part_of), below(beside, part_of)
        figures.note(f"round trip {share}, beside a backlog", "ms", f"{name}, no backlog", alone * 1e3)
        figures.note(f"round trip {share}, beside a backlog", "ms", behind, loaded * 1e3)
        figures.note(f"round trip {share}, beside a backlog", "times", name, loaded / alone)
    figures.note("RSS of manager", "MiB", behind, resident_bytes(service.pid) / _MEBIBYTE)


def _recover(service: Service, address: StreamAddress | None, sizes: Sizes, figures: Figures) -> None:
    """Kill the manager; start another one that reads the stream, then take over from a warm replica."""
    assert address is not None
    name = f"{sizes.waiting:,} jobs wait"
    figures.note("recovery", "s", f"{name}, cold: start to first answer", service.replace_manager())
    resident = resident_bytes(service.pid) / _MEBIBYTE
    figures.note("RSS of manager", "MiB", f"{STREAM}, {name}, recovered", resident)
    with TemporaryDirectory(prefix="svc-benchmark-mirror-") as folder:
        standby = Replication.open(lambda: open_log(address), Path(folder) / "mirror")
        standby.run(standby.replica.catch_up())
        service.manager.kill()
        service.manager.wait()
        started = time.perf_counter()
        with collector_paused():
            host = QueueHost(standby.take_over())
        figures.note("recovery", "s", f"{name}, warm: takeover to ready", time.perf_counter() - started)
        assert host.recovered_jobs >= sizes.waiting
        host.close()


def _rate(service: Service, jobs: int) -> float:
    """Return the jobs a second from the first submit to the last result."""
    started = time.perf_counter()
    for _ in service.all(tasks.same, range(jobs)):
        pass
    return jobs / (time.perf_counter() - started)


def _trips(service: Service, count: int) -> list[float]:
    """Return the seconds that lone jobs took from submit to result."""
    taken = []
    for _ in range(count):
        started = time.perf_counter()
        service.one(tasks.same, 0)
        taken.append(time.perf_counter() - started)
    return taken


def _stream_bytes(address: StreamAddress | None) -> int:
    assert address is not None

    async def ask() -> int:
        log = await open_log(address)
        try:
            return (await log.facts()).bytes
        finally:
            await log.close()

    return asyncio.run(ask())
