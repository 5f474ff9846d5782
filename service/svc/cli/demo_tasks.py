"""The tasks that `svc demo` and `svc dev` bring along: those of the textbook program.

They are here, and not in `examples/`, because a wheel has no examples: consumers import this module by
its name, wherever svc is installed. `examples/seed.py` is the same program as a user would write it.
"""

from __future__ import annotations

import multiprocessing
import sys
import time

from svc.worker.registry import task


class Task:
    """A product that takes its time. Calling it gives the line of text."""

    def __init__(self, a: int, b: int) -> None:
        """Multiply *a* by *b* when called."""
        self.a = a
        self.b = b

    def __call__(self) -> str:
        """Return `a * b = product`, after 0.1 seconds."""
        time.sleep(0.1)  # pretend to take time to do the work
        return f"{self.a} * {self.b} = {self.a * self.b}"

    def __str__(self) -> str:
        """Return `a * b`."""
        return f"{self.a} * {self.b}"


class MyFancyClass:
    """An object that is sent to a consumer and does something there."""

    def __init__(self, name: str) -> None:
        """Have a *name*."""
        self.name = name

    def do_something(self) -> None:
        """Print which process does it, and for whom."""
        process = multiprocessing.current_process().name
        sys.stdout.write(f"Doing something fancy in {process} for {self.name}\n")
        sys.stdout.flush()


@task(name="multiply")
def multiply(a: int, b: int) -> int:
    """Return the product of two numbers."""
    return a * b


@task(name="sleep")
def sleep(seconds: float) -> float:
    """Take *seconds*; return them."""
    time.sleep(seconds)
    return seconds


@task(name="fail", retries=1, backoff=0.2)
def fail(message: str = "this task always fails") -> None:
    """Raise an error, to see what becomes of such a job."""
    raise ValueError(message)
