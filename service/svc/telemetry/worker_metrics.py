"""A worker's metrics: its own processes, memory and connection. Only the manager counts jobs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from svc.telemetry.catalogue import CONSUMER_STATES, OTHER, RESTART_REASONS
from svc.telemetry.cgroup import Memory, read_memory
from svc.telemetry.exposition import Family, Sample, counter, gauge, of_this_process


@dataclass(frozen=True, slots=True)
class WorkerSnapshot:
    """The figures of a worker at one moment; the supervisor fills them in.

    Attributes:
        worker: its name.
        host: the host's name.
        version: the release of svc.
        start_method: how its consumers are started: `forkserver` or `spawn`.
        consumers: consumers by state: `busy`, `idle`, `starting`.
        busy_seconds: consumer-seconds spent in tasks since the start.
        restarts: consumers replaced since the start, by reason; unknown reasons count as `other`.
        cpu_cores: the CPU count that sized the pool.
        cpu_source: the source of that number, for instance `cgroup` or `affinity`.
        reconnects: connections to the manager that were lost since the start.
        draining: whether it takes no new jobs.
    """

    worker: str
    host: str = ""
    version: str = ""
    start_method: str = ""
    consumers: Mapping[str, int] = field(default_factory=dict)
    busy_seconds: float = 0.0
    restarts: Mapping[str, int] = field(default_factory=dict)
    cpu_cores: float = 0.0
    cpu_source: str = ""
    reconnects: int = 0
    draining: bool = False


def worker_exposition(snapshot: WorkerSnapshot) -> bytes:
    """Return the worker's metrics as Prometheus text, with the current memory of its control group."""
    return "".join([*_collect(snapshot, read_memory()), *of_this_process()]).encode()


def _collect(snapshot: WorkerSnapshot, memory: Memory) -> Iterator[Family]:
    me = snapshot.worker
    info = (me, snapshot.host, snapshot.version, snapshot.start_method)
    yield gauge("svc_worker_info", [(info, 1)])
    yield gauge("svc_worker_consumers", _closed(me, CONSUMER_STATES, snapshot.consumers))
    yield counter("svc_worker_consumer_busy_seconds_total", [((me,), snapshot.busy_seconds)])
    yield counter("svc_worker_consumer_restarts_total", _closed(me, RESTART_REASONS, snapshot.restarts))
    yield gauge("svc_worker_cpu_limit_cores", [((me, snapshot.cpu_source), snapshot.cpu_cores)])
    yield counter("svc_worker_manager_reconnects_total", [((me,), snapshot.reconnects)])
    yield gauge("svc_worker_draining", [((me,), float(snapshot.draining))])
    if memory.used is not None:
        yield gauge("svc_worker_memory_bytes", [((me,), memory.used)])
    if memory.limit is not None:
        yield gauge("svc_worker_memory_limit_bytes", [((me,), memory.limit)])


def _closed(worker: str, known: Iterable[str], numbers: Mapping[str, int]) -> Iterator[Sample]:
    folded = dict.fromkeys(known, 0)
    for value, number in numbers.items():
        name = value if value in folded else OTHER
        folded[name] = folded.get(name, 0) + number
    for value, number in folded.items():
        yield (worker, value), number
