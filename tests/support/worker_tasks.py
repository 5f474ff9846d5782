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

from svc.worker.attempt_ends import GiveUp, Retry, Snooze
from svc.worker.registry import task


def noop() -> None:
    """Do nothing."""


def length(value: bytes) -> int:
    return len(value)


def echo(value: object) -> object:
    return value


def sleep(seconds: float, until: str = "") -> int:
    """Sleep, and wait for the file *until* if it is named; return the number of the process."""
    time.sleep(seconds)
    _wait_for(until)
    return os.getpid()


def _wait_for(path: str) -> None:
    while path and not Path(path).exists():
        time.sleep(0.01)


def moment() -> float:
    """Return the time by a clock that all processes of this host share."""
    return time.monotonic()


def pid() -> int:
    return os.getpid()


def mark(path: str, seconds: float, until: str = "") -> None:
    """Add a line to a file at the beginning, and one at the end, after the file *until* is there."""
    with Path(path).open("a", encoding="utf-8") as file:
        file.write(f"begin {os.getpid()}\n")
        file.flush()
        time.sleep(seconds)
        _wait_for(until)
        file.write(f"end {os.getpid()}\n")


def takes(size: int, seconds: float) -> int:
    """Hold so many bytes of memory for a time."""
    held = bytearray(size)
    for place in range(0, size, 4096):
        held[place] = 1
    time.sleep(seconds)
    return len(held)


@task(retries=0)
def takes_and_fails(size: int, seconds: float) -> None:
    takes(size, seconds)
    raise ValueError("it took too much")


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
    """Sleep in C without releasing the interpreter lock of this process; a signal ends no sleep early."""
    left = seconds
    while left:
        left = ctypes.PyDLL(None).sleep(left)


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


@task(retries=2, backoff=30.0)
def end_by(path: str, *ways: str) -> str:
    """End each attempt in the next of these ways, and the last one with a result; a file counts them."""
    with Path(path).open("a", encoding="utf-8") as file:
        file.write("x")
    times = len(Path(path).read_text(encoding="utf-8"))
    if times > len(ways):
        return "done"
    match ways[times - 1]:
        case "retry":
            raise Retry("again", delay=0.05)
        case "snooze":
            raise Snooze(0.05)
        case "give up":
            raise GiveUp("enough")
        case _:
            raise Retry(delay=-1)
