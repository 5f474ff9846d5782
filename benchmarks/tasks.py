"""The work that every system does in the benchmark; workers import it as `benchmarks.tasks`."""

from __future__ import annotations

import time


def same(value: object) -> object:
    """Return *value*: the job that costs nothing but its way there and back."""
    return value


def nap(value: float) -> float:
    """Do the work of the seed's `Task`: take a tenth of a second, then return the square of *value*."""
    time.sleep(0.1)
    return value * value
