"""Tasks for the end-to-end tests, mounted into the workers."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
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


def take(mebibytes: int, way: str) -> None:
    """Take memory all at once: for this process, as memory that it could share, or in a child."""
    size = mebibytes << 20
    if way == "bytes":
        kept: object = b"x" * size
    elif way == "shared":
        kept = shared = mmap.mmap(-1, size)
        for place in range(0, size, mmap.PAGESIZE):
            shared[place] = 1
    else:
        code = f"import time; kept = b'x' * {size}; time.sleep(60)"
        kept = subprocess.run([sys.executable, "-c", code], check=True)
    time.sleep(60)
    del kept


def moment(number: int) -> tuple[int, float]:
    """Return *number*, and the time of day at which this began."""
    return number, time.time()
