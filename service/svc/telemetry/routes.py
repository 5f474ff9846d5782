"""The paths of the HTTP servers of a manager and of a worker, made from plain callables."""

from __future__ import annotations

import ipaddress
import math
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from http import HTTPStatus

import msgspec

from svc.domain.replies import Totals, WorkerView
from svc.printable import printable_line
from svc.telemetry.exposition import CONTENT_TYPE
from svc.telemetry.http import REQUEST_SECONDS, Response, Route, text

#: Seconds in which `desired_consumers` would finish the backlog.
DRAIN_TARGET_SECONDS = 60.0
#: The assumed run time, in seconds, of jobs in a queue of which none has ended yet.
ASSUMED_RUN_SECONDS = 1.0

#: Seconds for which the same answer is returned again, since clients need no key and may ask at any rate.
SHARED_SECONDS = 1.0

Ready = Callable[[], tuple[bool, str]]

#: The most characters of a label of a worker.
LABEL_CHARACTERS_MAX = 200


def manager_routes(
    *,
    exposition: Callable[[], bytes],
    ready: Ready,
    workers: Callable[[], Iterable[WorkerView] | None],
    scale: Callable[[], Mapping[str, int]],
) -> dict[str, Route]:
    """Return the paths of a manager.

    Args:
        exposition: returns the metrics.
        ready: returns whether the manager answers, and if not, the reason.
        workers: returns the connected workers; None while those of before a restart are still expected.
        scale: returns the figures for an autoscaler; see `scale_figures`.
    """
    return {
        **worker_routes(exposition=exposition, ready=ready),
        "/sd/workers": lambda: _discovery(workers()),
        "/api/v1/scale": lambda: _json(scale()),
    }


def worker_routes(*, exposition: Callable[[], bytes], ready: Ready) -> dict[str, Route]:
    """Return the paths of a worker; `/livez` answers as long as the process does."""
    return {
        "/metrics": lambda: Response(200, CONTENT_TYPE, exposition()),
        "/livez": lambda: text(200, "ok"),
        "/readyz": lambda: _readiness(*ready()),
    }


def standby_routes(
    *, exposition: Callable[[], bytes], said: Callable[[], str], lists_nothing: Callable[[], bool]
) -> dict[str, Route]:
    """Return the paths of a manager that does not serve: it lives, and is not ready.

    Args:
        exposition: returns the metrics.
        said: returns in words why it does not serve.
        lists_nothing: returns whether this manager stands by, and the leader's list of workers is known, so
            that an empty one drops none.
    """
    return {
        **worker_routes(exposition=exposition, ready=lambda: (False, said())),
        "/sd/workers": lambda: _discovery([] if lists_nothing() else None),
    }


def _discovery(workers: Iterable[WorkerView] | None) -> Response:
    """Answer a Prometheus; one that got an incomplete list would drop the targets that are not in it."""
    if workers is None:
        return text(503, "the workers are not known yet")
    return _json(discovered(workers))


def discovered(workers: Iterable[WorkerView]) -> list[dict[str, object]]:
    """Return the workers that serve HTTP, in the format of Prometheus' HTTP service discovery.

    The worker reports its port and its name; its address is the one from which it connects to the manager.
    """
    return [
        {
            "targets": [target],
            "labels": {
                "worker": _label(worker.name),
                "host": _label(worker.host),
                "version": _label(worker.release),
            },
        }
        for worker in workers
        if (target := _target(worker)) is not None
    ]


def _label(said: str) -> str:
    return printable_line(said[:LABEL_CHARACTERS_MAX])[:LABEL_CHARACTERS_MAX]


def _target(worker: WorkerView) -> str | None:
    """Return the address at which to scrape a worker, or None if it serves no HTTP that others can reach."""
    host, _, said = worker.http.rpartition(":")
    port = int(said) if len(said) <= 5 and said.isascii() and said.isdigit() else 0
    seen = _address(worker.address)
    if seen is None or not 0 < port < 65536:
        return None
    own = _address(host.strip("[]"))
    if own is not None and own.is_loopback and not seen.is_loopback:
        return None
    return f"[{seen}]:{port}" if seen.version == 6 else f"{seen}:{port}"


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return *text* as an address, with a mapped IPv4 address as IPv4; None if it is no address."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def scale_figures(totals: Totals, mean_run_seconds: Mapping[str, float]) -> dict[str, int]:
    """Return the backlog, and how many consumers would finish it within `DRAIN_TARGET_SECONDS`.

    The backlog is counted in seconds (ready jobs times the mean run time of their queue), because the number
    of jobs alone does not tell how long they take. The desired number of consumers is never less than the
    number of busy ones, so that scaling interrupts no job, and otherwise never more than there are jobs.
    """
    ready = sum(queue.ready for queue in totals.queues)
    leased = sum(queue.leased for queue in totals.queues)
    work = sum(
        queue.ready * (mean_run_seconds.get(queue.name) or ASSUMED_RUN_SECONDS) for queue in totals.queues
    )
    wanted = math.ceil(min(work / DRAIN_TARGET_SECONDS, ready + leased))
    return {"ready": ready, "leased": leased, "desired_consumers": max(totals.busy, wanted)}


def _readiness(ok: bool, reason: str) -> Response:
    return text(200, "ok") if ok else text(503, reason)


def _json(content: object) -> Response:
    return Response(200, "application/json", msgspec.json.encode(content))


def shared(routes: Mapping[str, Route]) -> dict[str, Route]:
    """Return *routes*, each wrapped so that it is called at most once in `SHARED_SECONDS`."""
    return {path: Shared(route) for path, route in routes.items()}


class Shared:
    """A route with the answer of another route within the last second; one thread calls that, others wait."""

    def __init__(self, route: Route, clock: Callable[[], float] = time.monotonic) -> None:
        """Share the answers of *route*; *clock* returns seconds that never go back."""
        self._route = route
        self._clock = clock
        self._lock = threading.Lock()
        self._answer: Response | None = None
        self._fresh_until = 0.0

    def __call__(self) -> Response:
        """Return an answer of the last second. An exception of the route is raised, and not shared."""
        if not self._lock.acquire(timeout=REQUEST_SECONDS):
            return text(HTTPStatus.SERVICE_UNAVAILABLE, "no answer yet; try again")
        try:
            if self._answer is None or self._clock() >= self._fresh_until:
                self._answer = None
                self._answer = self._route()
                self._fresh_until = self._clock() + SHARED_SECONDS
            return self._answer
        finally:
            self._lock.release()
