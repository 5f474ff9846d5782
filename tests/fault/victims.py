"""A job that fills the control group of its worker, and the processes that the kernel kills beside its own.

The kernel takes the largest process that still holds memory. While it takes the poisonous one apart, that may
be another: a consumer, or the supervisor, with which all its consumers die. Such an end is noted as a fault
if the group's own count of kills has room for it; for the processes of this worker, and for the time between
two looks at them.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tests.fault.site import Site
from tests.fault.strikes import Strikes
from tests.support.history import Fault, read_faults
from tests.support.processes import alive, children

FILLED = "F16 job takes all memory"
CHOSEN = "F16 the kernel chose another process"
#: The name under which `fault_tasks.devour` writes down each time.
_GREED = "out of memory"
_LOOK_SECONDS = 0.02


@dataclass
class Watched:
    """All that was seen of a worker's processes while its control group was full.

    Attributes:
        supervisor: its first process.
        helpers: the other processes with which consumers die.
        seen: when each process was last seen alive.
        gone: when each one that has ended was first missed.
        kills: the number of processes of the group that the kernel has killed meanwhile.
    """

    supervisor: int
    helpers: set[int] = field(default_factory=set)
    seen: dict[int, float] = field(default_factory=dict)
    gone: dict[int, float] = field(default_factory=dict)
    kills: int = 0

    def by_kernel(self, greedy: Collection[int]) -> list[Fault]:
        """Return the ends that the kernel's kills explain; *greedy* are the processes of the poison job.

        None, if there are more ends than kills: then something else has ended one of them.
        """
        left, faults = dict(self.gone), list[Fault]()
        for head in (self.supervisor, *sorted(self.helpers)):
            if head in left:
                since = self.seen[head]
                below = {pid: at for pid, at in left.items() if at >= since}
                faults.append(_fault(since, below))
                left = {pid: at for pid, at in left.items() if pid not in below}
        faults += [_fault(self.seen[pid], {pid: at}) for pid, at in left.items() if pid not in greedy]
        own = sum(pid in greedy for pid in left)
        return faults if len(faults) + own <= self.kills else []


def _fault(since: float, ended: dict[int, float]) -> Fault:
    return Fault(CHOSEN, since, max(ended.values()), frozenset(ended), fatal=True)


class Watch:
    """Looks at the processes of the worker *name*, again and again."""

    def __init__(self, site: Site, name: str) -> None:
        self._site, self._name = site, name
        self._before = site.groups[name].kills()
        self.watched = Watched(site.workers[name].pid)
        self.look()

    def look(self) -> None:
        watched, before = self.watched, time.monotonic()
        if alive(watched.supervisor):
            tree = self._site.tree(self._name)
            watched.helpers.update(children(watched.supervisor))
            watched.seen.update(dict.fromkeys(tree, before))
        for pid in watched.seen.keys() - watched.gone.keys():
            if alive(pid):
                watched.seen[pid] = before
            else:
                watched.gone[pid] = time.monotonic()
        watched.kills = self._site.groups[self._name].kills() - self._before


@contextlib.contextmanager
def _watching(site: Site) -> Iterator[list[Watched]]:
    """Look at all workers while the block runs, and once more at its end."""
    watches, over = [Watch(site, name) for name in sorted(site.workers)], threading.Event()

    def look_on() -> None:
        done = False
        while not done:
            done = over.wait(_LOOK_SECONDS)
            for watch in watches:
                watch.look()

    with ThreadPoolExecutor(1) as pool:
        looks = pool.submit(look_on)
        try:
            yield [watch.watched for watch in watches]
        finally:
            over.set()
            looks.result()


def fill_group(strikes: Strikes, kind: str) -> None:
    """Run a job that fills its worker's control group; note also the ends that it causes for others."""
    at, folder = time.monotonic(), strikes.site.folder
    with _watching(strikes.site) as workers:
        strikes.poison(kind)
    greeds = [fault.pids or () for fault in read_faults(folder) if fault.kind == _GREED and fault.at >= at]
    greedy = {pid for pids in greeds for pid in pids}
    strikes.faults += [fault for worker in workers for fault in worker.by_kernel(greedy)]
