"""Answers that many requests share: HTTP clients need no key, and may ask as often as they like."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus

from svc.telemetry.http import REQUEST_SECONDS, Response, Route, text

#: Seconds for which the same answer is returned again.
SHARED_SECONDS = 1.0


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
