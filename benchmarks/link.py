"""How much of the ideal rate is left if workers and clients are far from the manager.

Sleeps and no-op jobs run on 8 consumers, submitted by one client, over links of several lengths. Both the
worker and the client are at the far end. The ideal is the time that the same sleeps take in 8 local processes
that share no queue, measured in the same round, since each sleep lasts a little longer than it should.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

from benchmarks import ideal, tasks
from benchmarks.far import echo, far_service, trip_seconds
from benchmarks.figures import Figures
from benchmarks.peers.far import CELERY, DASK, FarPeer, far_peer
from benchmarks.peers.remote import Remote
from benchmarks.peers.timing import System, rate_of
from benchmarks.processes import processor_clock
from benchmarks.proxy import Link
from benchmarks.systems import Executor

CONSUMERS = 8
_WARM_JOBS = 200


@dataclass(frozen=True)
class Sizes:
    """The amounts of work.

    Attributes:
        delays: of the links, in seconds one way.
        pauses: of the tasks, in seconds.
        seconds: that all jobs of one measure take at best. Its begin and its end take a trip and a commit
            each, which is 0.5 % of two seconds at 0.5 ms one way, and 5 % at 25 ms.
        no_ops: jobs that do nothing.
        trips: round trips through each link alone.
        peers: systems that do the same over the same links; of jobs as many as they do in the same time.
    """

    delays: tuple[float, ...] = (0.0, 0.0005, 0.005, 0.010, 0.025)
    pauses: tuple[float, ...] = (0.001, 0.005, 0.020)
    seconds: float = 5.0
    no_ops: int = 100_000
    trips: int = 200
    peers: tuple[FarPeer, ...] = (CELERY, DASK)


FULL = Sizes()
QUICK = Sizes(seconds=1.0, no_ops=50_000, trips=100)
SMOKE = Sizes(delays=(0.0, 0.002), pauses=(0.001, 0.005), seconds=0.02, no_ops=200, trips=5)


def measure(durability: str, sizes: Sizes, figures: Figures) -> None:
    """Do one round."""
    ideals = {pause: ideal.rate(pause, _jobs(pause, sizes), CONSUMERS) for pause in sizes.pauses}
    for pause, rate in ideals.items():
        figures.note(_measure(pause), "jobs/s", f"{CONSUMERS} local processes, the ideal", rate)
    with Executor(CONSUMERS) as executor:
        _one(executor, Executor.name, 0.0, ideals, sizes, figures)
    _of_links(sizes, figures)
    for delay in sizes.delays:
        with far_service(durability, CONSUMERS, delay) as far:
            clock = processor_clock(far.link.pid)
            started, spent = time.monotonic(), clock()
            _one(far, f"svc, {durability}", delay, ideals, sizes, figures)
            share = (clock() - spent) / (time.monotonic() - started)
        figures.note("link: CPU of the proxy", "% of a core", f"{_length(delay)}, svc", 100 * share)
        for peer in sizes.peers:
            with far_peer(peer, CONSUMERS, delay) as remote:
                _of_peer(remote, f"{peer.title}, {_length(delay)}", ideals, sizes, figures)


def _one(
    system: System, name: str, delay: float, ideals: dict[float, float], sizes: Sizes, figures: Figures
) -> None:
    """Note the figures of one system at one length of the link."""
    place = f"{name}, {_length(delay)}"
    rate_of(system, tasks.same, list(range(min(_WARM_JOBS, sizes.no_ops))))
    for pause, best in ideals.items():
        rate = rate_of(system, tasks.pause, [pause] * _jobs(pause, sizes))
        figures.note(_measure(pause), "of ideal", place, rate / best)
    figures.note("link: no-op jobs", "jobs/s", place, rate_of(system, tasks.same, list(range(sizes.no_ops))))


def _of_peer(remote: Remote, place: str, ideals: dict[float, float], sizes: Sizes, figures: Figures) -> None:
    """Note the figures of a peer, with as many jobs as it does in the time that they take at best."""
    for pause, best in ideals.items():
        rate = remote.ask(_request("pause", pause, _jobs(pause, sizes), sizes))["rate"]
        figures.note(_measure(pause), "of ideal", place, rate / best)
    rate = remote.ask(_request("same", 0, sizes.no_ops, sizes))["rate"]
    figures.note("link: no-op jobs", "jobs/s", place, rate)


def _request(task: str, argument: float, jobs: int, sizes: Sizes) -> dict[str, object]:
    return {"task": task, "argument": argument, "jobs": jobs, "seconds": sizes.seconds}


def _of_links(sizes: Sizes, figures: Figures) -> None:
    """Note the time of a round trip through each link, and the processor time of the proxy for it."""
    with echo() as target:
        direct = trip_seconds(target, sizes.trips)
        figures.note("link: round trip", "ms", "direct, no proxy", statistics.median(direct) * 1e3)
        for delay in sizes.delays:
            with Link([target], delay) as link:
                clock = processor_clock(link.pid)
                spent = clock()
                taken = trip_seconds(link.addresses[0], sizes.trips)
                spent = (clock() - spent) / sizes.trips
            figures.note("link: round trip", "ms", _length(delay), statistics.median(taken) * 1e3)
            figures.note("link: CPU of the proxy, a lone round trip", "us", _length(delay), spent * 1e6)


def _jobs(pause: float, sizes: Sizes) -> int:
    return max(CONSUMERS, round(sizes.seconds / pause) * CONSUMERS)


def _measure(pause: float) -> str:
    return f"link: tasks of {pause * 1e3:g} ms"


def _length(delay: float) -> str:
    return f"{delay * 1e3:g} ms one way"
