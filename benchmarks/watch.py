"""Who watches a manager while something is done to it: an operator's connection that pings all the time.

After each answer the processor time of the manager is read. What it has used between two answers is that of
the turns in between, two or three: so the longest turn is below the most that is seen.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe

from benchmarks.line import Line
from benchmarks.processes import processor_clock

#: Seconds between an answer and the next ping.
PAUSE_SECONDS = 0.002
#: Seconds that a watcher waits for an answer, and for its own start.
PATIENCE_SECONDS = 120.0
Endpoint = tuple[str, int]


@dataclass
class Watched:
    """What was seen.

    Attributes:
        cpu: most seconds of processor time that the manager used between two answers.
        gap: most seconds between a ping and its answer.
        pings: answers that came.
        served: whether the operator was served all the time.
    """

    cpu: float = 0.0
    gap: float = 0.0
    pings: int = 0
    served: bool = True


@contextmanager
def watched(endpoint: Endpoint, authkey: bytes, pid: int) -> Iterator[Watched]:
    """Watch the manager, process *pid*, while the block runs; afterwards the value is filled."""
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    child = context.Process(target=_watch, args=(there, endpoint, authkey, pid))
    child.start()
    there.close()
    if not here.poll(PATIENCE_SECONDS):
        raise TimeoutError("the watcher did not start")
    here.recv()
    seen = Watched()
    try:
        yield seen
    finally:
        here.send("enough")
        found = here.recv() if here.poll(PATIENCE_SECONDS) else Watched(served=False)
        seen.cpu, seen.gap, seen.pings, seen.served = found.cpu, found.gap, found.pings, found.served
        child.join()


def _watch(pipe: Pipe, endpoint: Endpoint, authkey: bytes, pid: int) -> None:
    seen, used = Watched(), processor_clock(pid)
    line = Line(endpoint, authkey)
    line.ping()
    pipe.send("ready")
    before = used()
    try:
        enough = False
        while not enough:
            enough = pipe.poll(PAUSE_SECONDS)  # and once more: it may have been over between two pings
            started = time.perf_counter()
            line.ping()
            seen.gap = max(seen.gap, time.perf_counter() - started)
            now = used()
            seen.cpu, before = max(seen.cpu, now - before), now
            seen.pings += 1
    except (EOFError, OSError):
        seen.served = False
    finally:
        line.close()
    pipe.send(seen)
