"""Tasks of the fault suite: one that works, and those that do not end well. Each writes down its runs."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import threading
import time
from pathlib import Path

from svc.worker.registry import task
from tests.support.history import Log
from tests.support.leftovers import WAYS

#: Attempts that a task gets which loops: the first, and its retries.
LOOP_ATTEMPTS = 2
LOOP_SECONDS = 0.4
#: Bytes that a job takes which runs out of memory: more than the bound of a worker. And at a time.
_DEVOURED_BYTES, _STEP_BYTES = 1 << 30, 16 << 20

_logs: dict[tuple[int, str], Log] = {}


def work(label: str, seconds: float, folder: str) -> str:
    """Take *seconds*, and return the label."""
    _write("executions", folder, label=label, pid=os.getpid(), start=time.monotonic())
    time.sleep(seconds)
    _write("executions", folder, label=label, pid=os.getpid(), end=time.monotonic())
    return label


def die_after_done(label: str, seconds: float, folder: str) -> str:
    """Return the label; the first time, the process dies *seconds* later, mostly before it has told."""
    work(label, 0.0, folder)
    marker = Path(folder, f"{label}.once")
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return label
    # The thread may come late; that this process is dead by then is all that the end of the window says.
    _strike("killed after done", folder, seconds + 5.0)
    threading.Thread(target=_die_in, args=(seconds,), daemon=True).start()
    return label


def segfault(label: str, seconds: float, folder: str) -> None:
    """Die of a segmentation fault, each time."""
    work(label, seconds, folder)
    _strike("segfault", folder, 0.0)
    ctypes.string_at(0)


def leave(label: str, seconds: float, folder: str) -> None:
    """Leave without a word, each time."""
    work(label, seconds, folder)
    _strike("exit", folder, 0.0)
    os._exit(1)


@task(timeout=LOOP_SECONDS, retries=LOOP_ATTEMPTS - 1, backoff=0.05)
def loop(label: str, seconds: float, folder: str) -> None:
    """Never end."""
    work(label, seconds, folder)
    _strike("loop", folder, LOOP_SECONDS + 1.0)
    while True:
        pass


def devour(label: str, seconds: float, folder: str) -> None:
    """Take memory until the kernel kills the process; with a bound of its own, should it have none."""
    work(label, seconds, folder)
    _strike("out of memory", folder, 5.0)
    hoard = [bytearray(b"x") * _STEP_BYTES for _ in range(_DEVOURED_BYTES // _STEP_BYTES)]
    raise AssertionError(f"there was memory for {len(hoard)} pieces")


@task(retries=0)
def overreach(label: str, seconds: float, folder: str) -> None:
    """Ask for more address space than the process may have."""
    work(label, seconds, folder)
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _STEP_BYTES, before[1]))
    try:
        bytearray(_DEVOURED_BYTES)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def too_large(label: str, seconds: float, folder: str) -> bytes:
    """Return more than the manager takes."""
    work(label, seconds, folder)
    return bytes(3 << 20)


def unspeakable(label: str, seconds: float, folder: str) -> object:
    """Return what no codec can carry."""
    work(label, seconds, folder)
    return threading.Lock()


def leave_process(label: str, seconds: float, folder: str, way: str) -> str:
    """Leave a process behind, and write down its number and this one's; take *seconds*, return the label."""
    _write("leftovers", folder, label=label, left=WAYS[way](), pid=os.getpid())
    return work(label, seconds, folder)


def _strike(kind: str, folder: str, seconds: float) -> None:
    now = time.monotonic()
    _write(
        "faults",
        folder,
        kind=kind,
        at=now,
        until=now + seconds,
        pids=[os.getpid()],
        injected=False,
        fatal=True,
    )


def _die_in(seconds: float) -> None:
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


def _write(kind: str, folder: str, /, **line: object) -> None:
    key = os.getpid(), kind
    if key not in _logs:
        _logs[key] = Log(Path(folder, kind, f"{os.getpid()}.jsonl"))
    _logs[key].write(**line)
