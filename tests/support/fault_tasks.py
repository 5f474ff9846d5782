"""Tasks of the fault suite: one that works, and others that end badly. Each records its runs."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import os
import resource
import signal
import threading
import time
from collections.abc import Generator, Sequence
from pathlib import Path

from svc import Cancelled, current_job
from svc.worker.context import ListedJob
from svc.worker.registry import task
from tests.support.history import DYING_SECONDS, Log
from tests.support.leftovers import WAYS
from tests.support.poison_tasks import supervisor
from tests.support.processes import descendants

#: Attempts of a task that loops: the first, and its retries.
LOOP_ATTEMPTS = 2
LOOP_SECONDS = 0.4
#: Partial results of one attempt at a job that gives some.
GIVEN_VALUES = 300
#: Bytes that an out-of-memory job takes: more than the limit of a worker. And the bytes of one step.
_DEVOURED_BYTES, _STEP_BYTES = 1 << 30, 16 << 20
#: Each so manieth checkpoint is a durable one.
_DURABLE_EACH = 7
#: Seconds in which consumers are gone whose supervisor or forkserver has died, on a busy machine.
_LINGER_SECONDS = 10.0

_logs: dict[tuple[int, str], Log] = {}


def work(label: str, seconds: float, folder: str) -> str:
    """Sleep for *seconds*, and return the label."""
    _write("executions", folder, label=label, pid=os.getpid(), start=time.monotonic())
    time.sleep(seconds)
    _write("executions", folder, label=label, pid=os.getpid(), end=time.monotonic())
    return label


@task(batch=20, linger=0.02)
def work_listed(jobs: list[ListedJob]) -> list[str]:
    """Do the work of a list of jobs: sleep for the longest of their times, and return the labels."""
    for job in jobs:
        label, _, folder = job.args
        _write("executions", folder, label=label, pid=os.getpid(), start=time.monotonic())
    time.sleep(max(job.args[1] for job in jobs))
    for job in jobs:
        label, _, folder = job.args
        _write("executions", folder, label=label, pid=os.getpid(), end=time.monotonic())
    return [job.args[0] for job in jobs]


@task(concurrency=20)
async def work_beside(label: str, seconds: float, folder: str) -> str:
    """Do the same as `work`, beside others."""
    _write("executions", folder, label=label, pid=os.getpid(), start=time.monotonic())
    await asyncio.sleep(seconds)
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
    _strike("killed after done", folder, seconds)
    threading.Thread(target=_die_in, args=(seconds,), daemon=True).start()
    return label


def give(label: str, seconds: float, folder: str) -> Generator[list[object], None, str]:
    """Give partial results with the label, the process and their numbers, for a second; return the label."""
    _write("executions", folder, label=label, pid=os.getpid(), start=time.monotonic())
    for number in range(GIVEN_VALUES):
        yield [label, os.getpid(), number]
        time.sleep(seconds or 1.0 / GIVEN_VALUES)
    _write("executions", folder, label=label, pid=os.getpid(), end=time.monotonic())
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


def linger(label: str, seconds: float, folder: str, habit: str) -> str:
    """Take *seconds*, or be cancelled: obey that, forget it, or do not notice it in a loop in C.

    The loop also keeps the consumer from reporting the job before, which then runs again.
    """
    _write("executions", folder, label=label, pid=os.getpid(), start=time.monotonic())
    end = time.monotonic() + seconds
    if habit == "loop in C":
        _strike("loop in C", folder, seconds + 5.0)
        sum(itertools.repeat(0))
    while (left := end - time.monotonic()) > 0:
        with contextlib.suppress(*([Cancelled] if habit == "forget" else [])):
            time.sleep(left)
    _write("executions", folder, label=label, pid=os.getpid(), end=time.monotonic())
    return label


def step(label: str, steps: int, folder: str) -> str:
    """Leave a checkpoint after each step, a durable one now and then; go on at the last one."""
    _write("executions", folder, label=label, pid=os.getpid(), start=time.monotonic())
    job, about = current_job(), {"label": label, "pid": os.getpid(), "supervisor": supervisor()}
    done = job.last_checkpoint or 0
    _write("checkpoints", folder, **about, at=time.monotonic(), kind="begun", number=done)
    for number in range(done + 1, steps + 1):
        time.sleep(0.02)
        durable = number % _DURABLE_EACH == 0
        more = {**about, "number": number, "durable": durable}
        _write("checkpoints", folder, **more, at=time.monotonic(), kind="asked")
        job.checkpoint(number, durable=durable)
        _write("checkpoints", folder, **more, at=time.monotonic(), kind="kept")
    _write("executions", folder, label=label, pid=os.getpid(), end=time.monotonic())
    return label


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
    """Write down that *pids*, or this process, die within *seconds* from now, or soon after that.

    A busy machine may be late. The numbers of dead processes explain nothing.
    """
    now = time.monotonic()
    _write(
        "faults",
        folder,
        kind=kind,
        at=now,
        until=now + seconds + DYING_SECONDS,
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
