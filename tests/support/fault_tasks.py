"""Tasks of the fault suite: one that works, and others that end badly. Each records its runs."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from svc.worker.registry import task
from tests.support.history import Log
from tests.support.leftovers import WAYS
from tests.support.poison_tasks import supervisor
from tests.support.processes import descendants

#: Attempts of a task that loops: the first, and its retries.
LOOP_ATTEMPTS = 2
LOOP_SECONDS = 0.4
#: Bytes that an out-of-memory job takes: more than the limit of a worker. And the bytes of one step.
_DEVOURED_BYTES, _STEP_BYTES = 1 << 30, 16 << 20
#: Seconds in which consumers are gone whose supervisor or forkserver has died, on a busy machine.
_LINGER_SECONDS = 10.0

_logs: dict[tuple[int, str], Log] = {}


def work(label: str, seconds: float, folder: str) -> str:
    """Sleep for *seconds*, and return the label."""
    _write("executions", folder, label=label, pid=os.getpid(), start=time.monotonic())
    time.sleep(seconds)
    _write("executions", folder, label=label, pid=os.getpid(), end=time.monotonic())
    return label


def die_after_done(label: str, seconds: float, folder: str) -> str:
    """Return the label; the first time, the process dies *seconds* later, mostly before its report."""
    work(label, 0.0, folder)
    marker = Path(folder, f"{label}.once")
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return label
    # The thread may come late: the end of the window only means that the process is dead by then.
    _strike("killed after done", folder, seconds + 5.0)
    threading.Thread(target=_die_in, args=(seconds,), daemon=True).start()
    return label


def segfault(label: str, seconds: float, folder: str) -> None:
    """Die of a segmentation fault, each time."""
    work(label, seconds, folder)
    _strike("segfault", folder, 0.0)
    ctypes.string_at(0)


def leave(label: str, seconds: float, folder: str) -> None:
    """Exit without a report, each time."""
    work(label, seconds, folder)
    _strike("exit", folder, 0.0)
    os._exit(1)


@task(timeout=LOOP_SECONDS, retries=LOOP_ATTEMPTS - 1, backoff=0.05)
def loop(label: str, seconds: float, folder: str) -> None:
    """Run forever."""
    work(label, seconds, folder)
    _strike("loop", folder, LOOP_SECONDS + 1.0)
    while True:
        pass


def devour(label: str, seconds: float, folder: str) -> None:
    """Take memory until the kernel kills the process; fail at a limit of its own if no kill comes."""
    work(label, seconds, folder)
    _strike("out of memory", folder, 5.0)
    hoard = [bytearray(b"x") * _STEP_BYTES for _ in range(_DEVOURED_BYTES // _STEP_BYTES)]
    raise AssertionError(f"there was memory for {len(hoard)} pieces")


@task(retries=0)
def overreach(label: str, seconds: float, folder: str) -> None:
    """Request more address space than the process may have."""
    work(label, seconds, folder)
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + _STEP_BYTES, before[1]))
    try:
        bytearray(_DEVOURED_BYTES)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def too_large(label: str, seconds: float, folder: str) -> bytes:
    """Return a result that is too large for the manager."""
    work(label, seconds, folder)
    return bytes(3 << 20)


def unspeakable(label: str, seconds: float, folder: str) -> object:
    """Return a value that no codec can encode."""
    work(label, seconds, folder)
    return threading.Lock()


def leave_process(label: str, seconds: float, folder: str, way: str) -> str:
    """Leave a process behind, and write down its number and this one's; take *seconds*, return the label."""
    _write("leftovers", folder, label=label, left=WAYS[way](), pid=os.getpid())
    return work(label, seconds, folder)


def end_worker(label: str, seconds: float, folder: str) -> None:
    """Kill the supervisor of this worker, each time, and with it all of the worker's consumers."""
    work(label, seconds, folder)
    _end("worker ended", folder, supervisor(), b"tests.support.fail_points")


def end_forkserver(label: str, seconds: float, folder: str) -> None:
    """Kill the forkserver, each time, and with it all consumers of this worker."""
    work(label, seconds, folder)
    _end("forkserver ended", folder, os.getppid(), b"forkserver")


def close_descriptors(label: str, seconds: float, folder: str) -> None:
    """Close all files of this process, each time, its connections among them."""
    work(label, seconds, folder)
    _strike("descriptors closed", folder, _LINGER_SECONDS)
    # A process that still runs here opens its records anew: other files may have the old numbers.
    _logs.clear()
    os.closerange(3, 1000)


def _end(kind: str, folder: str, pid: int, command: bytes) -> None:
    """Kill *pid* with all below it if it runs *command*; this process has another parent if that had died."""
    if command in Path(f"/proc/{pid}/cmdline").read_bytes():
        _strike(kind, folder, _LINGER_SECONDS, descendants(pid))
        os.kill(pid, signal.SIGKILL)
    time.sleep(_LINGER_SECONDS)


def _strike(kind: str, folder: str, seconds: float, pids: Sequence[int] = ()) -> None:
    """Write down that *pids*, or this process, die within *seconds* from now."""
    now = time.monotonic()
    _write(
        "faults",
        folder,
        kind=kind,
        at=now,
        until=now + seconds,
        pids=list(pids or [os.getpid()]),
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
