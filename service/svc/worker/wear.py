"""The wear of a consumer's process: the jobs that it has run, and the memory that it has not given back."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable

from svc.worker.memory import memory_of

#: Seconds between two measurements of the memory; one takes some 50 µs.
_MEASURE_SECONDS = 0.1


class Wear:
    """Counts jobs and measures the memory between them, and tells once if a limit is reached.

    Args:
        jobs: the number of jobs after which the process is worn; 0 for no limit.
        rss: bytes of memory by which it may grow after its start; 0 for no limit.
        tell: called with the reason, `jobs` or `rss`.
        clock: gives seconds that never go back.
    """

    def __init__(
        self, jobs: int, rss: int, tell: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._jobs_left: float = jobs or math.inf
        self._rss = rss
        self._tell = tell
        self._clock = clock
        self._memory_before = memory_of(os.getpid()) if rss else 0
        self._measure_at = 0.0 if rss else math.inf

    def add(self, jobs: int) -> None:
        """Count *jobs* that were run."""
        self._jobs_left -= jobs
        if self._jobs_left <= 0:
            self._end("jobs")
        elif self._rss and self._clock() >= self._measure_at:
            self._measure_at = self._clock() + _MEASURE_SECONDS
            if memory_of(os.getpid()) - self._memory_before > self._rss:
                self._end("rss")

    def _end(self, reason: str) -> None:
        self._jobs_left, self._rss = math.inf, 0
        self._tell(reason)
