"""A trial: one long job, and many short ones that must not wait for it.

One job of 5 s and 400 of 10 ms run on 4 consumers. While one of these is busy with the long job, the others
share the short ones, so all short ones have ended after 400 x 10 ms / 3; the bound is 1.1 times that, and two
round trips of the link. No short job may begin on the consumer of the long one after that has ended. The
long job is of another task, or of the same one, whose run times then say nothing of it; it is the first of
all, or amid the others.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmarks import tasks
from benchmarks.far import FarService, far_service
from benchmarks.figures import Figures
from benchmarks.systems import task_name

Stamps = tuple[float, float, int]


@dataclass(frozen=True)
class Sizes:
    """The amounts of work.

    Attributes:
        delays: of the links, in seconds one way.
        consumers: of the worker.
        jobs: short ones.
        short: seconds that each of them sleeps.
        long: seconds that the long one sleeps.
    """

    delays: tuple[float, ...] = (0.0, 0.010)
    consumers: int = 4
    jobs: int = 400
    short: float = 0.010
    long: float = 5.0


FULL = Sizes()
SMOKE = Sizes(delays=(0.002,), jobs=40, short=0.005, long=0.5)


@dataclass(frozen=True)
class Trial:
    """The figures of one trial.

    Attributes:
        shape: the place of the long job.
        delay: of the link, in seconds one way.
        seconds: from the submit until all short jobs had ended.
        bound: the most that these may be.
        behind: short jobs that began on the consumer of the long one after that one.
    """

    shape: str
    delay: float
    seconds: float
    bound: float
    behind: int


def measure(durability: str, sizes: Sizes, figures: Figures) -> None:
    """Do one round."""
    for trial in trials(durability, sizes):
        name = f"{trial.shape}, {trial.delay * 1e3:g} ms one way"
        figures.note("one long job: all short ones ended", "s", name, trial.seconds)
        figures.note("one long job: all short ones ended", "s", f"{name}, the bound", trial.bound)
        figures.note("one long job: short ones that began behind it", "", name, trial.behind)


def trials(durability: str, sizes: Sizes) -> Iterator[Trial]:
    """Yield the trials of each link, all on one service."""
    for delay in sizes.delays:
        with far_service(durability, sizes.consumers, delay) as far:
            list(far.all(tasks.stamped, [sizes.short] * 20 * sizes.consumers))
            yield _of_another_task(far, sizes, delay)
            for shape, place in (("first", 0), ("amid the others", sizes.jobs // 2)):
                pauses = [sizes.short] * sizes.jobs
                pauses.insert(place, sizes.long)
                submitted = time.monotonic()
                found = list(far.all(tasks.stamped, pauses))
                long_job = found.pop(place)
                yield judged(sizes, f"of the same task, {shape}", delay, submitted, long_job, found)


def _of_another_task(far: FarService, sizes: Sizes, delay: float) -> Trial:
    """Submit the long job, then the others; the time counts from their submit."""
    long_job = far.client.submit(task_name(tasks.stamped_too), sizes.long)
    submitted = time.monotonic()
    short = list(far.all(tasks.stamped, [sizes.short] * sizes.jobs))
    return judged(sizes, "of another task, first", delay, submitted, long_job.result(), short)


def judged(
    sizes: Sizes, shape: str, delay: float, submitted: float, long_job: Stamps, short: Sequence[Stamps]
) -> Trial:
    """Return the figures of jobs that have run: when they began and ended, and in which process."""
    _, long_ended, process = long_job
    return Trial(
        shape,
        delay,
        max(ended for _, ended, _ in short) - submitted,
        1.1 * sizes.jobs * sizes.short / (sizes.consumers - 1) + 2 * 2 * delay,
        sum(1 for began, _, its in short if its == process and began >= long_ended),
    )
