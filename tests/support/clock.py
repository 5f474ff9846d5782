"""Clocks that a test can set forward."""

from __future__ import annotations

import threading

from svc.broker.clock import ManagerClock


class FakeClock(ManagerClock):
    """A clock that moves only if a test advances it."""

    def __init__(self, start: float = 1_000_000.0) -> None:
        super().__init__()
        self.time = start

    def now(self) -> float:
        return self.time

    def behind(self) -> float:
        return 0.0

    def advance(self, seconds: float) -> None:
        self.time += seconds


class LeapingClock(ManagerClock):
    """The real clock, which a test can also stop, and set forward from any thread."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()
        self._stopped_at: float | None = None

    def now(self) -> float:
        with self._lock:
            return super().now() if self._stopped_at is None else self._stopped_at

    def stop(self) -> None:
        """Stand still from now on, so that a slow machine changes nothing."""
        now = self.now()
        with self._lock:
            self._stopped_at = now

    def behind(self) -> float:
        return 0.0

    def advance(self, seconds: float) -> None:
        with self._lock:
            if self._stopped_at is None:
                self._offset += seconds
            else:
                self._stopped_at += seconds
