"""Tasks for the workers of the tests."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from svc.worker.registry import task


def noop() -> None:
    """Do nothing."""


def echo(value: object) -> object:
    return value


def sleep(seconds: float) -> int:
    """Sleep; return the number of the process."""
    time.sleep(seconds)
    return os.getpid()


def pid() -> int:
    return os.getpid()


def mark(path: str, seconds: float) -> None:
    """Add a line to a file at the beginning, and one at the end."""
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(f"begin {os.getpid()}\n")
        file.flush()
        time.sleep(seconds)
        file.write(f"end {os.getpid()}\n")


@task(retries=2, backoff=0.05)
def fail_until(path: str, successes_after: int) -> int:
    """Fail the first times; a file counts them."""
    with Path(path).open("a", encoding="utf-8") as file:
        file.write("x")
    times = len(Path(path).read_text(encoding="utf-8"))
    if times <= successes_after:
        raise ValueError(f"failure {times}")
    return times


@task(retries=0)
def leave() -> None:
    sys.exit(3)


@task(timeout=0.3, retries=0)
def too_long(seconds: float) -> None:
    time.sleep(seconds)


@task(timeout=0.3, retries=0)
def too_long_with_child(path: str) -> None:
    """Start another process, which outlives this task if it is not ended."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    Path(path).write_text(str(child.pid), encoding="utf-8")
    child.wait()


def segfault() -> None:
    ctypes.string_at(0)


def die(code: int) -> None:
    os._exit(code)


def kill_self() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def hold_gil(seconds: int) -> None:
    """Sleep in C without releasing the interpreter lock of this process."""
    ctypes.PyDLL(None).sleep(seconds)


async def later(value: int) -> int:
    await asyncio.sleep(0.01)
    return value + 1


def fork_and_return() -> int:
    """Fork, and return in both processes."""
    child = os.fork()
    if child:
        os.waitpid(child, 0)
    return child


def sleep_or_die(code: int) -> None:
    """Die with *code*, or do nothing if it is 0."""
    if code:
        time.sleep(0.01)
        os._exit(code)


def orphan() -> int:
    """Leave a process behind that ends at once; its new parent has to reap it."""
    middle = os.fork()
    if middle == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.waitpid(middle, 0)
    return os.getppid()


def zombies() -> int:
    """Return the number of zombies that this process can see."""
    stats = [path.read_text(encoding="ascii") for path in Path("/proc").glob("[0-9]*/stat")]
    return sum(stat.rpartition(")")[2].split()[0] == "Z" for stat in stats)


def say(word: str, times: int) -> None:
    """Print a line of many words repeatedly."""
    for _ in range(times):
        print(*[word] * 12)  # noqa: T201 - the test needs the output
