"""The paths of the HTTP servers of a manager and of a worker, made from plain callables."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import msgspec

from service.domain.replies import Totals, WorkerView
from service.telemetry.exposition import CONTENT_TYPE
from service.telemetry.http import Response, Route, text

#: Seconds in which `desired_consumers` would have the backlog done.
DRAIN_TARGET_SECONDS = 60.0
#: Run time that is assumed of jobs of which none has ended yet.
ASSUMED_RUN_SECONDS = 1.0

Ready = Callable[[], tuple[bool, str]]

_WILDCARDS = ("", "0.0.0.0", "::")  # noqa: S104 - recognised here, not listened on


def manager_routes(
    *,
    exposition: Callable[[], bytes],
    ready: Ready,
    workers: Callable[[], Iterable[WorkerView]],
    scale: Callable[[], Mapping[str, int]],
) -> dict[str, Route]:
    """Return the paths of a manager.

    Args:
        exposition: gives the metrics.
        ready: says whether the manager answers, and if not, why.
        workers: gives the connected workers.
        scale: gives what an autoscaler asks for, as `scale_figures` makes it.
    """
    return {
        **worker_routes(exposition=exposition, ready=ready),
        "/sd/workers": lambda: _json(discovered(workers())),
        "/api/v1/scale": lambda: _json(scale()),
    }


def worker_routes(*, exposition: Callable[[], bytes], ready: Ready) -> dict[str, Route]:
    """Return the paths of a worker; `/livez` answers as long as the process does."""
    return {
        "/metrics": lambda: Response(200, CONTENT_TYPE, exposition()),
        "/livez": lambda: text(200, "ok"),
        "/readyz": lambda: _readiness(*ready()),
    }


def discovered(workers: Iterable[WorkerView]) -> list[dict[str, object]]:
    """Return the workers that serve HTTP, as Prometheus' HTTP service discovery wants them."""
    return [
        {
            "targets": [_target(worker)],
            "labels": {"worker": worker.name, "host": worker.host, "version": worker.release},
        }
        for worker in workers
        if worker.http
    ]


def _target(worker: WorkerView) -> str:
    """Return where to scrape; a worker that listens on all addresses is reached by its host's name."""
    host, _, port = worker.http.rpartition(":")
    return f"{worker.host}:{port}" if host.strip("[]") in _WILDCARDS else worker.http


def scale_figures(totals: Totals, mean_run_seconds: Callable[[str], float]) -> dict[str, int]:
    """Return the backlog and how many consumers would do it within `DRAIN_TARGET_SECONDS`.

    Work is counted in seconds (ready jobs times the mean run time of their queue), because a depth says
    nothing about how long it lasts. Never fewer than are busy: whoever scales by it interrupts no job.
    """
    ready = sum(queue.ready for queue in totals.queues)
    work = sum(queue.ready * (mean_run_seconds(queue.name) or ASSUMED_RUN_SECONDS) for queue in totals.queues)
    return {
        "ready": ready,
        "leased": sum(queue.leased for queue in totals.queues),
        "desired_consumers": max(totals.busy, math.ceil(work / DRAIN_TARGET_SECONDS)),
    }


def _readiness(ok: bool, reason: str) -> Response:
    return text(200, "ok") if ok else text(503, reason)


def _json(content: object) -> Response:
    return Response(200, "application/json", msgspec.json.encode(content))
