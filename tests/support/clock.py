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
    """The real clock, which a test can also set forward from any thread."""

    def __init__(self) -> None:
        super().__init__()
        self._lock = threading.Lock()

    def behind(self) -> float:
        return 0.0

    def advance(self, seconds: float) -> None:
        with self._lock:
            self._offset += seconds
