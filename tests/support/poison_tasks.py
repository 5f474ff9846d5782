"""Tasks that take down their consumer, its worker, or the connection of both."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path


def supervisor() -> int:
    """Return the process of this worker: the parent of the forkserver, which is the parent of a consumer."""
    stat = Path(f"/proc/{os.getppid()}/stat").read_text(encoding="utf-8")
    return int(stat.rpartition(")")[2].split()[1])


def good(number: int) -> int:
    return number


def end_worker() -> None:
    os.kill(supervisor(), signal.SIGKILL)
    time.sleep(60)


def close_descriptors() -> None:
    os.closerange(3, 1000)


def close_descriptors_and_sleep() -> None:
    os.closerange(3, 1000)
    time.sleep(0.2)


def close_all() -> None:
    sys.stdout.write("to be flushed")
    os.closerange(0, 1000)


def allow_no_descriptors() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    time.sleep(0.2)


def take_all_descriptors() -> None:
    """Leave a thread that takes each descriptor that becomes free."""
    taken = threading.Event()

    def take() -> None:
        while True:
            try:
                os.dup(0)
            except OSError:
                taken.set()
                time.sleep(0.001)

    threading.Thread(target=take).start()
    taken.wait()


def signal_parent(number: int) -> None:
    os.kill(os.getppid(), number)
    time.sleep(60)


def signal_worker(number: int) -> None:
    os.kill(supervisor(), number)
    time.sleep(60)


def signal_worker_from_a_child(number: int) -> None:
    worker = supervisor()
    if not os.fork():
        os.kill(worker, number)
        time.sleep(60)
    time.sleep(60)


def truncate_shared_memory() -> None:
    """Make every file without a name, such as shared memory, empty."""
    for descriptor in _descriptors("(deleted)"):
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, 0)


def overwrite_shared_memory() -> None:
    for descriptor in _descriptors("(deleted)"):
        with contextlib.suppress(OSError):
            os.pwrite(descriptor, b"\xff" * os.fstat(descriptor).st_size, 0)
    time.sleep(60)


def write_to_pipes(content: bytes) -> None:
    """Write to the pipes and connections of the process."""
    for descriptor in _descriptors("socket:"):
        with contextlib.suppress(OSError):
            os.write(descriptor, content)
    time.sleep(60)


def _descriptors(kind: str) -> list[int]:
    folder = Path("/proc/self/fd")
    names = {int(each.name): _target(each) for each in folder.iterdir()}
    return [descriptor for descriptor, name in names.items() if descriptor > 2 and kind in name]


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""
