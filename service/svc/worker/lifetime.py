"""The end of a worker that goes by itself: if there is no work for it any more, or if its time is over."""

from __future__ import annotations

from collections.abc import Mapping

from svc.worker.options import WorkerOptions


class Lifetime:
    """Tells when a worker has reached one of its own limits.

    Args:
        options: its settings.
        born: the monotonic time of its start.

    Attributes:
        bounded: whether there is any limit.
    """

    def __init__(self, options: WorkerOptions, born: float) -> None:
        self._ends_at = born + options.time_limit if options.time_limit else 0.0
        self._idle = options.idle_limit
        self.bounded = bool(options.idle_limit or options.time_limit)
        self._active_at = born
        self._busy_seconds = 0.0

    def limit(self, now: float, consumers: Mapping[str, int], busy_seconds: float, *, connected: bool) -> str:
        """Return the limit that is reached, `time` or `idle`, or "".

        *consumers* are their numbers by state, *busy_seconds* the time that they have spent in jobs so far.
        A worker that cannot reach its manager does not know whether there is work.
        """
        if self._ends_at and now >= self._ends_at:
            return "time"
        waits = connected and consumers["idle"] > 0 and not consumers["busy"] and not consumers["starting"]
        if not waits or busy_seconds != self._busy_seconds:
            self._active_at, self._busy_seconds = now, busy_seconds
        return "idle" if self._idle and now - self._active_at >= self._idle else ""
