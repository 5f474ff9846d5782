"""A worker's metrics: its own processes, memory and connection. Only the manager counts jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from svc.telemetry.catalogue import WORKER_METRICS
from svc.telemetry.cgroup import read_memory
from svc.telemetry.exposition import of_this_process
from svc.telemetry.label_values import OTHER
from svc.telemetry.metrics import MetricSeries


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
        output_dropped: bytes of output that were dropped because the manager was away.
        round_trip: seconds of a request that the manager answers at once; None if none was measured.
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
    output_dropped: int = 0
    round_trip: float | None = None


def worker_exposition(snapshot: WorkerSnapshot) -> bytes:
    """Return the worker's metrics as Prometheus text, with the current memory of its control group."""
    registry, me, memory = MetricSeries(WORKER_METRICS), snapshot.worker, read_memory()
    info = (me, snapshot.host, snapshot.version, snapshot.start_method)
    registry.number("svc_worker_info", *info).value = 1
    for name, counts in (
        ("svc_worker_consumers", snapshot.consumers),
        ("svc_worker_consumer_restarts_total", snapshot.restarts),
    ):
        known = registry.numbers(name, me)
        for value, count in counts.items():
            registry.number(name, me, value if value in known else OTHER).value += count
    registry.number("svc_worker_cpu_limit_cores", me, snapshot.cpu_source).value = snapshot.cpu_cores
    for name, number in {
        "svc_worker_consumer_busy_seconds_total": snapshot.busy_seconds,
        "svc_worker_manager_reconnects_total": snapshot.reconnects,
        "svc_worker_output_dropped_bytes_total": snapshot.output_dropped,
        "svc_worker_draining": float(snapshot.draining),
        "svc_worker_round_trip_seconds": snapshot.round_trip,
        "svc_worker_memory_bytes": memory.used,
        "svc_worker_memory_limit_bytes": memory.limit,
    }.items():
        if number is not None:
            registry.number(name, me).value = number
    return "".join([*registry.expose(), *of_this_process()]).encode()
