"""Answers that many requests share, as who asks for them needs no key and may ask as often as he likes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus

from svc.telemetry.http import REQUEST_SECONDS, Response, Route, text

#: Seconds for which an answer is given again.
SHARED_SECONDS = 1.0


def shared(routes: Mapping[str, Route]) -> dict[str, Route]:
    """Return *routes*, each of which is asked at most once in `SHARED_SECONDS`."""
    return {path: Shared(route) for path, route in routes.items()}


class Shared:
    """Answers with what a route answered within the last second; one thread asks it, the others wait."""

    def __init__(self, route: Route, clock: Callable[[], float] = time.monotonic) -> None:
        """Share the answers of *route*; *clock* gives seconds that never go back."""
        self._route = route
        self._clock = clock
        self._lock = threading.Lock()
        self._answer: Response | None = None
        self._fresh_until = 0.0

    def __call__(self) -> Response:
        """Return an answer of the last second. What the route raises is raised, and not shared."""
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
