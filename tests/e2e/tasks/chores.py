"""Tasks for the end-to-end tests, mounted into the workers."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def nap(seconds: float, value: int) -> int:
    """Sleep, then return *value*."""
    time.sleep(seconds)
    return value


def crash() -> None:
    """Kill the consumer that runs this."""
    os.kill(os.getpid(), signal.SIGKILL)


def end_worker() -> None:
    """Kill the supervisor of this worker: the parent of the forkserver, whose child a consumer is."""
    stat = Path(f"/proc/{os.getppid()}/stat").read_text(encoding="utf-8")
    os.kill(int(stat.rpartition(")")[2].split()[1]), signal.SIGKILL)
    time.sleep(60)


def close_descriptors() -> None:
    """Close all files of this consumer, its connections among them."""
    os.closerange(3, 1000)


def end_parent() -> None:
    """Kill the parent of this consumer."""
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)
