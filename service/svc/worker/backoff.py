"""The pauses between attempts to reach the manager."""

from __future__ import annotations

import random

from svc.domain.retry import growing

_FIRST_SECONDS = 0.1


class Backoff:
    """Pauses that grow with each failure in a row, with jitter.

    Attributes:
        failures: the failures since the last success.
    """

    def __init__(self, longest: float) -> None:
        """Begin with 0.1 seconds; no pause is longer than *longest* seconds."""
        self._longest = longest
        self.failures = 0

    def fail(self) -> float:
        """Count a failure; return the seconds until the next attempt."""
        self.failures += 1
        return growing(_FIRST_SECONDS, self._longest, self.failures, random.random())
