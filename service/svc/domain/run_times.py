"""How long the jobs of each task run, so that a grant holds no more of them than reading ahead may hide.

A consumer asks before it knows of which tasks the jobs will be; the manager hears all run times, and sees
whose jobs are next.
"""

from __future__ import annotations

from svc.domain.limits import GRANT_JOBS

#: Weight of a new run time in the mean, where it is shorter than that.
_WEIGHT = 0.3
#: Tasks that are remembered; the one first seen is forgotten for a new one.
_TASKS_MAX = 1024


class Pace:
    """The exponentially weighted mean run time of one task's jobs.

    Attributes:
        mean: that mean, in seconds.
        trusted: how many jobs may be granted at once: 1 at first, doubled by each report, up to `GRANT_JOBS`.
    """

    __slots__ = ("mean", "trusted")

    def __init__(self) -> None:
        """Know nothing yet: one job may be granted, and nothing beside it."""
        self.mean = float("inf")
        self.trusted = 1

    def ran(self, count: int, seconds: float) -> None:
        """Learn that *count* jobs, one or more, took *seconds* together."""
        sample = seconds / count
        if not sample >= 0:
            return  # a peer may report what it likes
        # Up at once, down by and by: a mean too long costs a few calls, one too short other jobs' time.
        known = self.mean if self.mean < float("inf") else sample
        self.mean = sample if sample > known else known + _WEIGHT * (sample - known)
        self.trusted = min(GRANT_JOBS, 2 * self.trusted)

    def fitting(self, seconds: float) -> int:
        """Return how many jobs one grant may hold that run in *seconds*; 0 where not even one is sure to."""
        if self.mean > seconds:
            return 0
        jobs = seconds / max(self.mean, 1e-9)
        return int(jobs) if jobs < self.trusted else self.trusted


class RunTimes:
    """The run times of all tasks that were run of late."""

    def __init__(self) -> None:
        """Know no task."""
        self._run_times: dict[str, Pace] = {}

    def __len__(self) -> int:
        """Return how many tasks are known."""
        return len(self._run_times)

    def ran(self, task: str, count: int, seconds: float) -> None:
        """Learn that *count* jobs of *task*, one or more, took *seconds* together."""
        run_time = self._run_times.get(task)
        if run_time is None:
            if len(self._run_times) >= _TASKS_MAX:
                del self._run_times[next(iter(self._run_times))]
            run_time = self._run_times[task] = Pace()
        run_time.ran(count, seconds)

    def of(self, task: str) -> Pace:
        """Return the pace of *task*: one that knows nothing where no job of it has ended yet."""
        return self._run_times.get(task) or Pace()
