"""Clocks that a test can set forward."""

from __future__ import annotations

import threading

from svc.broker.clock import Clock, ManagerClock


class FakeClock(Clock):
    """A clock that moves only if a test advances it."""

    def __init__(self, start: float = 1_000_000.0) -> None:
        self.time = start

    def now(self) -> float:
        return self.time

    def advance(self, seconds: float) -> None:
        self.time += seconds


class LeapingClock(Clock):
    """The real clock, which a test can also set forward from any thread."""

    def __init__(self) -> None:
        self._clock = ManagerClock()
        self._leaps = 0.0
        self._lock = threading.Lock()

    def now(self) -> float:
        return self._clock.now() + self._leaps

    def advance(self, seconds: float) -> None:
        with self._lock:
            self._leaps += seconds
