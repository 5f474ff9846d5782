"""How many jobs a consumer asks for at once: one, unless its jobs are so short that asking is the work."""

from __future__ import annotations

#: Run time, in seconds, that one grant should hold: what reading ahead may hide, and no more.
_AHEAD_SECONDS = 0.004
_LIMIT_MAX = 256
_WEIGHT = 0.3


class Pace:
    """The exponentially weighted mean run time of a consumer's jobs, and the limit that follows from it.

    Attributes:
        limit: how many jobs to ask for next: 1 at first, at most doubled each time, at most 256, and never
            more than run in 4 ms.
    """

    __slots__ = ("_mean", "limit")

    def __init__(self) -> None:
        self._mean = 0.0
        self.limit = 1

    def ran(self, count: int, seconds: float) -> None:
        """Learn that *count* jobs of one grant took *seconds* together."""
        if count == 0:
            return
        sample = seconds / count
        # Up at once, down by and by: a mean too long costs a few calls, one too short other jobs' time.
        self._mean = sample if sample > self._mean else self._mean + _WEIGHT * (sample - self._mean)
        self.limit = max(1, min(_LIMIT_MAX, 2 * self.limit, int(_AHEAD_SECONDS / max(self._mean, 1e-9))))
