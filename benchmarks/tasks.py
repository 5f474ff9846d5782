"""The tasks that every system runs in the benchmark; workers import them as `benchmarks.tasks`."""

from __future__ import annotations

import time


def same(value: object) -> object:
    """Return *value*: a job without any work, so that only its transport takes time."""
    return value


def nap(value: float) -> float:
    """Sleep for a tenth of a second, then return the square of *value*."""
    time.sleep(0.1)
    return value * value
