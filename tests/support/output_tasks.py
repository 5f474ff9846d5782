"""Tasks that write output in all the ways that there are."""

from __future__ import annotations

import array
import asyncio
import atexit
import contextlib
import ctypes
import fcntl
import logging
import os
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable
from multiprocessing.util import Finalize
from pathlib import Path

from svc.worker.context import current_job
from svc.worker.registry import task


def write(out: str, err: str = "") -> None:
    sys.stdout.write(out)
    sys.stderr.write(err)


def by_descriptor(text: str, seconds: float = 0.0, begun: str = "") -> None:
    if begun:
        Path(begun).touch()
    os.write(1, text.encode())
    time.sleep(seconds)


def by_program(text: str) -> None:
    subprocess.run([sys.executable, "-c", f"print({text!r})"], check=True)


def in_c(text: str) -> None:
    ctypes.CDLL(None).puts(text.encode())
    time.sleep(0.002)


def log(text: str) -> None:
    logging.getLogger("mytasks").warning(text)


def log_of_the_job(text: str) -> None:
    current_job().logger.warning("said_by_the_task", text=text)


def quiet() -> None:
    """Write nothing."""


def die_after(text: str) -> None:
    print(text)  # noqa: T201 - the test needs the output
    os.kill(os.getpid(), signal.SIGKILL)


def fail_after(text: str) -> None:
    print(text)  # noqa: T201 - the test needs the output
    raise ValueError(text)


def flood(size: int) -> None:
    """Write *size* bytes of numbered lines."""
    block = b"".join(b"%015d\n" % number for number in range(65536))
    for _ in range(size // len(block)):
        view = memoryview(block)
        while view:
            view = view[os.write(1, view) :]
    os.write(1, b"the end\n")


def lines_until(path: str) -> None:
    """Print a line every 50 ms with its time, until the file *path* exists."""
    while not os.path.exists(path):  # noqa: PTH110
        print(f"{time.time():.3f}")  # noqa: T201 - as above
        time.sleep(0.05)


_meetings: dict[str, asyncio.Event] = {}


@task(concurrency=10, retries=0)
async def together(text: str, meeting: str, last: bool = False, how: str = "") -> None:
    """Write half a line, wait until the *last* job has come, and write the rest, in all ways."""
    met = _meetings.setdefault(meeting, asyncio.Event())
    print(f"{text} begins", end="")  # noqa: T201 - the test needs the output
    sys.stderr.buffer.write(b"bytes of " + text.encode() + b"\n")
    if last:
        met.set()
    await met.wait()
    print(" and ends")  # noqa: T201 - as above
    current_job().logger.info("met", text=text)
    logging.getLogger("mytasks").warning("log of %s", text)
    await asyncio.to_thread(print, f"in a thread of {text}")
    _in_plain_thread(lambda: print("in a thread of nobody"))  # noqa: T201 - as above
    os.write(1, b"on the descriptor\n")
    match how:
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "flood":
            for number in range(200_000):
                print(f"{number:015}")  # noqa: T201 - as above


def _in_plain_thread(function: Callable[[], None]) -> None:
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def line_after_line(first: str, more: str, second: str, stop: str) -> None:
    """Print a line, another one once the file *more* exists, and end with the file *stop*."""
    for text, path in ((first, more), (second, stop)):
        sys.stdout.write(text)
        while not os.path.exists(path):  # noqa: PTH110
            time.sleep(0.005)


@task(keep_children=True, retries=0)
def leave_a_writer(path: str) -> None:
    """Leave a process that holds the pipes, and writes once the file *path* exists."""
    sys.stdout.write("before\n")
    script = f"until [ -e {path} ]; do sleep 0.02; done; echo late; echo late >&2; exec sleep 600"
    subprocess.Popen(["sh", "-c", script])


#: The ways in which a task takes its process's own output away.
TAKEN: dict[str, Callable[[], object]] = {
    "close 1": lambda: os.close(1),
    "close 1 and 2": lambda: os.closerange(1, 3),
    "dup2 on 1": lambda: os.dup2(os.open(os.devnull, os.O_WRONLY), 1),
    "dup2 on 1 and 2": lambda: [os.dup2(os.open(os.devnull, os.O_WRONLY), each) for each in (1, 2)],
    "swap 1 and 2": lambda: [os.dup(1), os.dup2(2, 1)],
    "let 1 not block": lambda: os.set_blocking(1, False),
    "close the pipes' other ends": lambda: os.closerange(3, 100),
}


@task(retries=0)
def take_away(way: str) -> int:
    """Write, take descriptors away, and write again; return the number of the process."""
    sys.stdout.write("before\n")
    TAKEN[way]()
    with contextlib.suppress(OSError):
        os.write(1, b"after\n")
    return os.getpid()


@task(retries=0)
def write_at_exit() -> None:
    """Write now, and when the process ends: processes of multiprocessing run finalizers, but not `atexit`."""
    atexit.register(os.write, 1, b"never\n")
    Finalize(None, os.write, (1, b"at exit\n"), exitpriority=1)
    sys.stdout.write("in time\n")


@task(retries=0)
def fork_and_write(how: str) -> int:
    """Fork a child that writes and ends, as *how* says; write after its end, and return its exit code."""
    child = os.fork()
    if child == 0:
        print("child")  # noqa: T201 - the test needs the output
        os.write(1, b"child's descriptor\n")
        match how:
            case "exit":
                sys.exit(0)
            case "raise":
                raise ValueError(how)
            case "_exit":
                os._exit(0)
        return -1  # and the child comes back to the consumer's own code
    _, status = os.waitpid(child, 0)
    print("parent")  # noqa: T201 - as above
    return os.waitstatus_to_exitcode(status)


@task(retries=0)
def write_bytes(data: bytes) -> None:
    """Write *data* to stdout, past the text layer."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(1, rest) :]


@task(retries=0)
def write_and_see_it_read(data: bytes) -> None:
    """Write *data* to stdout, past the text layer, and return when the supervisor has read all of it."""
    write_bytes(data)
    unread = array.array("i", [1])
    while unread[0]:
        fcntl.ioctl(1, termios.FIONREAD, unread, True)


@task(retries=0)
def write_in_two(first: bytes, go: str, second: bytes) -> None:
    """Write *first* to stdout, and *second* when the file *go* is there."""
    write_and_see_it_read(first)
    while not os.path.exists(go):  # noqa: PTH110 - a task that polls
        time.sleep(0.005)
    write_bytes(second)


@task(retries=0)
def fill_without_waiting() -> int:
    """Write to stdout without waiting until it is full, and return the bytes that had room."""
    os.set_blocking(1, False)
    size = 0
    with contextlib.suppress(BlockingIOError):
        while size < 1 << 26:
            size += os.write(1, b"." * (1 << 16))
    return size


@task(retries=0)
def blocks() -> list[bool]:
    """Return whether stdout and stderr wait for room."""
    return [os.get_blocking(each) for each in (1, 2)]
