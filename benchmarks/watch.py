"""Watches a manager under attack: an operator's connection pings it all the time.

A ping is sent each millisecond, whether earlier ones have been answered or not. So after each long turn, a
ping waits at the beginning of the next turn, and is answered at its end. After each answer the processor time
of the manager is read: the time between two answers is that of one turn, and of short ones.
"""

from __future__ import annotations

import math
import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe

from benchmarks.line import Line, frame
from benchmarks.processes import processor_clock
from svc.domain.commands import Ping

#: Seconds between two pings, and the most pings without an answer.
PERIOD_SECONDS = 0.001
OUTSTANDING_MAX = 32
#: Seconds that a watcher waits for an answer, and for its own start.
PATIENCE_SECONDS = 120.0
PING = frame([Ping()])
Endpoint = tuple[str, int]


@dataclass
class Watched:
    """The figures of one watch.

    Attributes:
        cpu: the most seconds of processor time that the manager used between two answers.
        gap: the most seconds between a ping and its answer.
        pings: the number of answers.
        served: whether the operator was served all the time.
    """

    cpu: float = 0.0
    gap: float = 0.0
    pings: int = 0
    served: bool = True


@contextmanager
def watched(endpoint: Endpoint, authkey: bytes, pid: int) -> Iterator[Watched]:
    """Watch the manager, process *pid*, while the block runs; the figures are set after the block."""
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
    try:
        _ping_until(pipe, line, used, seen)
    except (EOFError, OSError):
        seen.served = False
    finally:
        line.close()
    pipe.send(seen)


def _ping_until(pipe: Pipe, line: Line, used: Callable[[], float], seen: Watched) -> None:
    """Ping until a message comes on *pipe*, then once more, and wait until all pings are answered."""
    sent: deque[float] = deque()
    before, due = used(), 0.0
    while due < math.inf or sent:
        now = time.perf_counter()
        if now >= due and len(sent) < OUTSTANDING_MAX:
            line.send(PING)
            sent.append(now)
            due = math.inf if pipe.poll() else now + PERIOD_SECONDS
        if line.has_answer(PERIOD_SECONDS):
            line.receive()
            seen.gap = max(seen.gap, time.perf_counter() - sent.popleft())
            after = used()
            seen.cpu, before = max(seen.cpu, after - before), after
            seen.pings += 1
        elif sent and now > sent[0] + PATIENCE_SECONDS:
            raise TimeoutError("the manager answers no more")
