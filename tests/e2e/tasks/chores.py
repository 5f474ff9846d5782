"""Tasks for the end-to-end tests, mounted into the workers."""

from __future__ import annotations

import os
import signal
import time


def nap(seconds: float, value: int) -> int:
    """Sleep, then return *value*."""
    time.sleep(seconds)
    return value


def crash() -> None:
    """Kill the consumer that runs this."""
    os.kill(os.getpid(), signal.SIGKILL)
