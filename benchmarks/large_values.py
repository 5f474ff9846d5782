"""Bytes and files over `--max-job-bytes`: seconds from end to end, and the memory of all processes."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import svc
from benchmarks import tasks
from benchmarks.processes import family, resident_bytes
from benchmarks.systems import Service

_BLOCK = 2**20
#: Seconds between two looks at the memory of a process.
LOOK_SECONDS = 0.005


@dataclass(frozen=True)
class Moved:
    """The figures of one job.

    Attributes:
        name: its argument and its result.
        seconds: the time from the submit to the result.
        manager, client, consumer: the bytes by which each process has grown at most meanwhile, without the
            value itself if that came into the process.
    """

    name: str
    seconds: float
    manager: int
    client: int
    consumer: int


def measure(durability: str, size: int) -> Iterator[Moved]:
    """Yield the figures of jobs with an argument, a result, and a file, of *size* bytes."""
    with Service(durability, consumers=1) as service:
        service.one(tasks.length, bytes(_BLOCK))
        path = service.folder / "value"
        yield _moved(service, "bytes as argument", partial(_sent, service, size, path), size, size)
        yield _moved(service, "bytes as result", partial(service.one, tasks.filled, size), size, size)
        file = svc.File(path)
        yield _moved(service, "a file as argument", partial(service.one, tasks.length, file))
        yield _moved(service, "a file there and back", partial(service.one, tasks.same, file))


def _sent(service: Service, size: int, path: Path) -> object:
    """Make a value, keep it as a file too, and send it to a task."""
    value = os.urandom(_BLOCK) * (size // _BLOCK)
    path.write_bytes(value)
    return service.one(tasks.length, value)


def _moved(
    service: Service, name: str, run: Callable[[], object], client: int = 0, consumer: int = 0
) -> Moved:
    """Return the figures of one job; *client* and *consumer* are the bytes that each has of the value."""
    pids = {"manager": [service.manager.pid], "client": [os.getpid()], "consumer": _consumers(service)}
    watches = {part: [Watch(pid) for pid in each] for part, each in pids.items()}
    started = time.perf_counter()
    found = run()
    seconds = time.perf_counter() - started
    grown = {part: max(watch.end() for watch in each) for part, each in watches.items()}
    del found
    return Moved(name, seconds, grown["manager"], grown["client"] - client, grown["consumer"] - consumer)


class Watch:
    """Looks at the memory of a process, every few milliseconds."""

    def __init__(self, pid: int) -> None:
        """Begin."""
        self._pid = pid
        self._least = self._most = resident_bytes(pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def end(self) -> int:
        """Stop, and return by how many bytes the process has grown at most."""
        self._over.set()
        self._thread.join()
        return self._most - self._least

    def _look(self) -> None:
        # The kernel's own peak does not do, as a worker begins it anew for each attempt.
        while not self._over.wait(LOOK_SECONDS):
            self._most = max(self._most, resident_bytes(self._pid))


def _consumers(service: Service) -> list[int]:
    assert service.worker is not None
    return family(service.worker.pid)[1:]
