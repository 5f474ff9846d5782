"""The tasks that every system runs in the benchmark; workers import them as `benchmarks.tasks`."""

from __future__ import annotations

import importlib
import itertools
import os
import pickle
import re
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import svc  # peers import this module in environments without svc


def same(value: object) -> object:
    """Return *value*: a job without any work, so that only its transport takes time."""
    return value


def doze(value: object) -> object:
    """Sleep for 20 ms, then return *value*."""
    time.sleep(0.02)
    return value


def pause(seconds: float) -> float:
    """Sleep for *seconds*, then return them."""
    time.sleep(seconds)
    return seconds


def stamped(seconds: float) -> tuple[float, float, int]:
    """Sleep for *seconds*; return the times of beginning and end, on this host's clock, and the process."""
    began = time.monotonic()
    time.sleep(seconds)
    return began, time.monotonic(), os.getpid()


def stamped_too(seconds: float) -> tuple[float, float, int]:
    """Do the same as a task of its own, so that it has a run time of its own."""
    return stamped(seconds)


#: The variable that names the folder of the marks, and the bytes of each mark.
MARKS, MARK_BYTES = "BENCHMARK_MARKS", 8
_marks: dict[int, int] = {}


def marked(number: int, seconds: float) -> None:
    """Add *number* to this process's file of marks, and sleep for *seconds*."""
    if os.getpid() not in _marks:
        path = Path(os.environ[MARKS]) / str(os.getpid())
        _marks[os.getpid()] = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(_marks[os.getpid()], number.to_bytes(MARK_BYTES, "little"))
    if seconds:
        time.sleep(seconds)


#: Seconds that `note_start` runs.
NOTED_SECONDS = 0.05


def note_start(path: str) -> None:
    """Append the time to a file, and run on for a moment."""
    with Path(path).open("ab", buffering=0) as file:
        file.write(b"%f\n" % time.time())
    time.sleep(NOTED_SECONDS)


def nap(value: float) -> float:
    """Sleep for a tenth of a second, then return the square of *value*."""
    time.sleep(0.1)
    return value * value


def length(value: bytes | svc.File) -> int:
    """Return the bytes of *value*."""
    return len(value) if isinstance(value, bytes) else value.size


def filled(size: int) -> bytes:
    """Return so many bytes."""
    return os.urandom(2**20) * (size >> 20)


def keep(path: str, function: Callable[[Any], Any], argument: Any) -> None:
    """Call *function*, and leave its result in a file, which appears when it is complete."""
    draft = Path(f"{path}.draft")
    draft.write_bytes(pickle.dumps(function(argument)))
    draft.replace(path)


def process(value: object) -> int:
    """Return the process that runs this."""
    return os.getpid()


def sleep_on() -> None:
    """Sleep until something ends it."""
    time.sleep(3600)


def match_on() -> None:
    """Run a catastrophic regular expression."""
    re.match(r"(a+)+$", "a" * 60 + "b")


def compute_on() -> None:
    """Call NumPy again and again, for about a second each time."""
    numpy = importlib.import_module("numpy")
    matrix = numpy.random.default_rng(1).random((1500, 1500))
    while True:
        numpy.linalg.eigvalsh(matrix)


def loop_on_in_c() -> None:
    """Loop in C, with the interpreter's lock and without a look at signals."""
    sum(itertools.repeat(0))


def receive_on() -> None:
    """Wait for a message that never comes."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.recv(1)


#: Bytes that `flood` writes at once.
FLOOD_BLOCK = 65536


def flood(size: int) -> int:
    """Write *size* bytes of lines to stdout, past Python's own buffers; return *size*."""
    block = b"%063d\n" % 0 * (FLOOD_BLOCK // 64)
    for _ in range(size // len(block)):
        rest = memoryview(block)
        while rest:
            rest = rest[os.write(1, rest) :]
    return size


def tell_times(lines: int, pause: float) -> None:
    """Print the time on each of *lines* lines."""
    for _ in range(lines):
        print(time.time(), flush=True)
        time.sleep(pause)
