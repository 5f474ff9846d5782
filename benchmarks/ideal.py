"""The ideal: local processes that do the same sleeps, and need nobody to hand them out.

A sleep lasts a little longer than it should, and more so on a busy machine, so the ideal is measured.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Barrier

from benchmarks import tasks

Times = list[tuple[float, float]]


def rate(pause: float, jobs: int, processes: int) -> float:
    """Return the sleeps a second of *processes*, of which each does its share of *jobs*."""
    share = jobs // processes

    def all_of_it() -> Times:
        began = time.monotonic()
        for _ in range(share):
            tasks.pause(pause)
        return [(began, time.monotonic())]

    times = _in_processes(processes, all_of_it)
    return share * processes / (max(ended for _, ended in times) - min(began for began, _ in times))


def times(pauses: Sequence[float], processes: int) -> Times:
    """Return when each sleep began and ended, in seconds since the first one, in the order of beginning.

    They are taken in their order, each by the process that is free first.
    """
    context = multiprocessing.get_context("fork")
    following: Synchronized[int] = context.Value("i", 0)

    def one_by_one() -> Times:
        mine: Times = []
        while True:
            with following.get_lock():
                number = following.value
                following.value += 1
            if number >= len(pauses):
                return mine
            mine.append(tasks.stamped(pauses[number])[:2])

    found = sorted(_in_processes(processes, one_by_one))
    first = found[0][0]
    return [(began - first, ended - first) for began, ended in found]


def _in_processes(count: int, work: Callable[[], Times]) -> Times:
    """Return the times of *work*, done in *count* processes that begin together."""
    context = multiprocessing.get_context("fork")
    barrier = context.Barrier(count)
    pipes = [context.Pipe(duplex=False) for _ in range(count)]
    children = [context.Process(target=_child, args=(writer, barrier, work)) for _, writer in pipes]
    for child in children:
        child.start()
    found = [each for reader, _ in pipes for each in reader.recv()]
    for child in children:
        child.join()
    return found


def _child(writer: Connection, barrier: Barrier, work: Callable[[], Times]) -> None:
    barrier.wait()
    writer.send(work())
