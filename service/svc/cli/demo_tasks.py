"""The tasks of `svc demo` and `svc dev`: those of the usual example of multiprocessing queues.

They are here, and not in `examples/`, because a wheel has no examples: consumers import this module by
its name in any installation. `examples/textbook.py` is the same program in the form that a user would write.
"""

from __future__ import annotations

import multiprocessing
import sys
import time

from svc.worker.registry import task


class Multiplication:
    """A product that takes some time. Its call returns a line of text."""

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
        """Give the object its *name*."""
        self.name = name

    def do_something(self) -> None:
        """Print the name of the process and of the object."""
        process = multiprocessing.current_process().name
        sys.stdout.write(f"Doing something fancy in {process} for {self.name}\n")
        sys.stdout.flush()


@task(name="multiply")
def multiply(a: int, b: int) -> int:
    """Return the product of two numbers."""
    return a * b


@task(name="sleep")
def sleep(seconds: float) -> float:
    """Sleep for *seconds*; return them."""
    time.sleep(seconds)
    return seconds


@task(name="fail", retries=1, backoff=0.2)
def fail(message: str = "this task always fails") -> None:
    """Raise an error, to show how such a job ends."""
    raise ValueError(message)
