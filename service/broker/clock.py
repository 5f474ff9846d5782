"""The manager's clock: the time of day at its start, then only forwards.

One number serves for due times, which must survive a restart, and for leases, which must not be hurt by a
host whose time of day is set: after the start the time of day is not read again. A clock that stood behind
the journal at the start continues from the journal's last time.
"""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Tells the time."""

    def now(self) -> float:
        """Return the Unix time in seconds; never less than what it returned before."""


class ManagerClock:
    """The clock described above."""

    def __init__(self, at_least: float = 0.0) -> None:
        """Start now, or at *at_least* (a Unix time) if that is later."""
        self._offset = max(time.time(), at_least) - time.monotonic()

    def now(self) -> float:
        """Return the Unix time in seconds."""
        return self._offset + time.monotonic()
