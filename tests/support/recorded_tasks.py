"""Tasks that record each execution, for tests that count them."""

from __future__ import annotations

import os
import time


def square(number: int, seconds: float, record: str) -> int:
    """Add a line to the file *record*, wait *seconds*, and return the square of *number*."""
    descriptor = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(descriptor, f"{number} {os.getpid()}\n".encode())
    finally:
        os.close(descriptor)
    time.sleep(seconds)
    return number * number
