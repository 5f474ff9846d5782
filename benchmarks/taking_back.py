"""A trial: jobs that a busy consumer has read ahead start elsewhere as soon as another consumer is idle.

A burst is one long job among short ones of the same task. The consumer that runs the long one holds short
ones that it has read ahead. The other consumer runs out of jobs; from then on, until the last short job has
begun, its pauses are the times that taking back takes. The bound is two round trips of the link and 20 ms.

The hard case has only a few short jobs, so that the other consumer runs out of them just after the long one
has begun: nobody knows yet that this one takes longer than the others.

The last part counts. Bursts of very short jobs, with some longer ones among them, make consumers idle
while others hold jobs. Each run of a job adds its number to a file of marks, so jobs that ran twice are seen.
"""

from __future__ import annotations

import os
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks import tasks
from benchmarks.far import far_service
from benchmarks.figures import Figures
from benchmarks.systems import task_name
from svc import Client

_GRACE_SECONDS = 0.020
#: Short jobs after which the mean run time knows nothing of a long one before them any more.
_FORGETTING = 30
Stamps = tuple[float, float, int]


@dataclass(frozen=True)
class Sizes:
    """The amounts of work.

    Attributes:
        delays: of the links, in seconds one way.
        bursts: of which the longest pause is told, for each link.
        shorts: short jobs of a burst, which one consumer can run while the long one runs.
        short: seconds that a short job of a burst sleeps.
        long: seconds that the long one sleeps.
        few: how many short jobs the bursts of the hard case have.
        means: seconds that these sleep.
        hard_long: seconds that the long ones among them sleep.
        jobs: that are counted, for each link.
        of_one_burst: jobs of each burst that are counted.
        consumers: that run these.
    """

    delays: tuple[float, ...] = (0.0, 0.010)
    bursts: int = 20
    shorts: int = 80
    short: float = 0.005
    long: float = 1.0
    few: tuple[int, ...] = (1, 2, 3, 4, 5, 6)
    means: tuple[float, ...] = (0.005, 0.015, 0.025)
    hard_long: float = 0.25
    jobs: int = 100_000
    of_one_burst: int = 500
    consumers: int = 8


FULL = Sizes()
QUICK = Sizes(bursts=5, jobs=20_000)
SMOKE = Sizes(
    delays=(0.002,), bursts=2, shorts=20, long=0.4, few=(2,), means=(0.015,), jobs=400, of_one_burst=100
)


@dataclass(frozen=True)
class Runs:
    """How often jobs ran: jobs that ran twice or more, and jobs that never ran."""

    twice: int
    never: int


def measure(durability: str, sizes: Sizes, figures: Figures) -> None:
    """Do one round."""
    for delay in sizes.delays:
        place = f"{delay * 1e3:g} ms one way"
        pauses, behind = idle_seconds(durability, sizes, delay)
        bound = 2 * 2 * delay + _GRACE_SECONDS
        note_pauses(figures, place, pauses, bound)
        figures.note("taking back: jobs that began behind the long one", "", place, behind)
        for short, hard in hard_pauses(durability, sizes, delay).items():
            note_pauses(figures, f"{place}, few of {short * 1e3:g} ms", hard, bound)
        seen = runs(durability, sizes, delay)
        figures.note("taking back: jobs that ran twice", f"of {sizes.jobs:,}", place, seen.twice)
        figures.note("taking back: jobs that never ran", f"of {sizes.jobs:,}", place, seen.never)


def note_pauses(figures: Figures, place: str, pauses: Sequence[float], bound: float) -> None:
    """Tell the median and the longest of *pauses*, and the *bound* of each, in seconds."""
    for name, seconds in (
        ("median", statistics.median(pauses)),
        ("longest", max(pauses)),
        ("bound", bound),
    ):
        figures.note("taking back: a consumer was idle", "ms", f"{place}, {name}", seconds * 1e3)


def idle_seconds(durability: str, sizes: Sizes, delay: float) -> tuple[list[float], int]:
    """Return the longest pause in each burst, and how many jobs began behind a long one in all."""
    longest: list[float] = []
    behind = 0
    with far_service(durability, 2, delay) as far:
        list(far.all(tasks.stamped, [sizes.short] * 100))
        for number in range(sizes.bursts):
            # The place of the long job varies, so that it is at different places of a grant.
            place = number % 10
            pauses = [sizes.short] * sizes.shorts
            pauses.insert(place, sizes.long)
            found = list(far.all(tasks.stamped, pauses))
            long_job = found.pop(place)
            seconds, waited = longest_pause(long_job, found)
            longest.append(seconds)
            behind += waited
    return longest, behind


def hard_pauses(durability: str, sizes: Sizes, delay: float) -> dict[float, list[float]]:
    """Return the longest pause of each burst with few short jobs, by the seconds that these sleep."""
    found: dict[float, list[float]] = {short: [] for short in sizes.means}
    with far_service(durability, 2, delay) as far:
        for short in sizes.means:
            for few in sizes.few:
                # The long job of the last burst counts in the mean, until so many others have ended.
                list(far.all(tasks.stamped, [short] * _FORGETTING))
                long_job, *others = far.all(tasks.stamped, [sizes.hard_long, *[short] * few])
                found[short].append(longest_pause(long_job, others)[0])
    return found


def longest_pause(long_job: Stamps, short: Sequence[Stamps]) -> tuple[float, int]:
    """Return the longest time for which the other consumer was idle, and the jobs that began behind."""
    long_began, long_ended, process = long_job
    behind = sum(1 for began, _, its in short if its == process and began >= long_ended)
    elsewhere = sorted((began, ended) for began, ended, its in short if its != process)
    free = [long_began, *(max(long_began, ended) for _, ended in elsewhere)]
    pauses = [began - freed for freed, (began, _) in zip(free, elsewhere, strict=False) if began > long_began]
    if behind:
        # These could have run there from the end of its last job on.
        pauses.append(long_ended - max(free))
    return max(pauses, default=0.0), behind


def runs(durability: str, sizes: Sizes, delay: float) -> Runs:
    """Run jobs in bursts, and count how often each ran."""
    with marks() as folder:
        with far_service(durability, sizes.consumers, delay) as far:
            run_bursts(far.client, sizes.jobs, sizes.of_one_burst)
        return counted(folder, sizes.jobs)


@contextmanager
def marks() -> Iterator[Path]:
    """Yield a folder for the marks of workers that are started meanwhile."""
    with TemporaryDirectory(prefix="svc-marks-") as folder, _variable(tasks.MARKS, folder):
        yield Path(folder)


def run_bursts(client: Client, jobs: int, of_one_burst: int) -> None:
    """Run jobs of which every 50th takes 20 ms, and every 250th 100 ms; wait for each burst."""
    for start in range(0, jobs, of_one_burst):
        numbers = range(start, min(start + of_one_burst, jobs))
        pauses = [0.1 if number % 250 == 125 else 0.02 if number % 50 == 25 else 0.0 for number in numbers]
        for _ in client.map(task_name(tasks.marked), numbers, pauses):
            pass


def counted(folder: Path, jobs: int) -> Runs:
    """Return how often *jobs* ran, by the marks in *folder*."""
    counts = Counter(_numbers(folder))
    twice = sum(1 for count in counts.values() if count > 1)
    return Runs(twice, jobs - len(counts))


def _numbers(folder: Path) -> Iterator[int]:
    for path in folder.iterdir():
        content = path.read_bytes()
        for place in range(0, len(content), tasks.MARK_BYTES):
            yield int.from_bytes(content[place : place + tasks.MARK_BYTES], "little")


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """Set a variable of the environment, which workers inherit."""
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
