"""A mixed load: one job in a hundred is long, and the short ones should not wait for it.

The ideal is a queue without any cost: local processes of which the next free one takes the next sleep.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks import ideal, tasks
from benchmarks.far import far_service
from benchmarks.figures import Figures, below
from benchmarks.peers.far import CELERY, DASK, FarPeer, far_peer
from benchmarks.peers.timing import rate_of, sleep_times
from benchmarks.systems import Executor

CONSUMERS = 8
_WARM_JOBS = 200
_SEED = 14


@dataclass(frozen=True)
class Sizes:
    """The amounts of work.

    Attributes:
        delays: of the links, in seconds one way.
        jobs: short and long ones together; one in a hundred is long, and at least one.
        short: seconds that a short job sleeps.
        long: seconds that a long job sleeps.
        peers: systems that do the same.
    """

    delays: tuple[float, ...] = (0.0, 0.010)
    jobs: int = 600
    short: float = 0.010
    long: float = 1.0
    peers: tuple[FarPeer, ...] = (CELERY, DASK)


FULL = Sizes()
QUICK = Sizes(jobs=300)
SMOKE = Sizes(delays=(0.002,), jobs=40, short=0.005, long=0.05)


def measure(durability: str, sizes: Sizes, figures: Figures) -> None:
    """Do one round."""
    pauses = load(sizes)
    best = ideal.times(pauses, CONSUMERS)
    _note(best, best, sizes, f"{CONSUMERS} local processes, the ideal", figures)
    with Executor(CONSUMERS) as executor:
        rate_of(executor, tasks.same, list(range(_WARM_JOBS)))
        _note(sleep_times(executor, pauses), best, sizes, f"{Executor.name}, 0 ms one way", figures)
    for delay in sizes.delays:
        place = f"{delay * 1e3:g} ms one way"
        with far_service(durability, CONSUMERS, delay) as far:
            rate_of(far, tasks.same, list(range(_WARM_JOBS)))
            _note(sleep_times(far, pauses), best, sizes, f"svc, {durability}, {place}", figures)
        for peer in sizes.peers:
            with far_peer(peer, CONSUMERS, delay) as remote:
                seen = remote.ask({"pauses": pauses})["times"]
            _note(seen, best, sizes, f"{peer.title}, {place}", figures)


def load(sizes: Sizes) -> list[float]:
    """Return the sleeps in their order, which is the same each time."""
    count = max(1, sizes.jobs // 100)
    pauses = [sizes.long] * count + [sizes.short] * (sizes.jobs - count)
    random.Random(_SEED).shuffle(pauses)
    return pauses


def _note(times: ideal.Times, best: ideal.Times, sizes: Sizes, name: str, figures: Figures) -> None:
    if len(times) != sizes.jobs:
        raise RuntimeError(f"{name} gave {len(times)} results for {sizes.jobs} jobs")
    figures.note("mixed load: all jobs", "of ideal", name, _last(best) / _last(times))
    short, of_best = _short(times, sizes), _short(best, sizes)
    figures.note("mixed load: short jobs", "of ideal", name, _last(of_best) / _last(short))
    for share, title in ((0.5, "median"), (0.99, "99 %")):
        ended = below([ended for _, ended in short], share)
        figures.note(f"mixed load: submit to end of short jobs, {title}", "s", name, ended)


def _short(times: Sequence[tuple[float, float]], sizes: Sizes) -> ideal.Times:
    """Return the times of the short ones: a sleep is never too short, and no busy machine adds so much."""
    return [(began, ended) for began, ended in times if ended - began < sizes.long]


def _last(times: Sequence[tuple[float, float]]) -> float:
    return max(ended for _, ended in times)
