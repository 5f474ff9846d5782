"""The run times of each task; they limit the number of jobs in a grant that is read ahead.

A consumer does not know the tasks of the jobs that it asks for. The manager gets all run times, and knows
the next jobs.
"""

from __future__ import annotations

from svc.domain.limits import GRANT_JOBS

#: Weight of a new run time in the mean, if it is shorter than the mean.
_WEIGHT = 0.3
#: Tasks that are remembered; a new task replaces the one that was first seen.
_TASKS_MAX = 1024


class Pace:
    """The exponentially weighted mean run time of one task's jobs.

    Attributes:
        mean: the mean, in seconds.
        trusted: how many jobs may be granted at once: 1 at first, doubled by each report, up to `GRANT_JOBS`.
    """

    __slots__ = ("mean", "trusted")

    def __init__(self) -> None:
        """Start without run times: one job may be granted, and no other beside it."""
        self.mean = float("inf")
        self.trusted = 1

    def ran(self, count: int, seconds: float) -> None:
        """Add the run time of *count* jobs, one or more, that took *seconds* together."""
        sample = seconds / count
        if not sample >= 0:
            return  # a peer may report any number
        # The mean rises at once and falls slowly: if it is too long, that costs a few calls; if it is too
        # short, other jobs have to wait.
        known = self.mean if self.mean < float("inf") else sample
        self.mean = sample if sample > known else known + _WEIGHT * (sample - known)
        self.trusted = min(GRANT_JOBS, 2 * self.trusted)

    def fitting(self, seconds: float) -> int:
        """Return how many jobs in one grant run within *seconds*; 0 if not even one is sure to."""
        if self.mean > seconds:
            return 0
        jobs = seconds / max(self.mean, 1e-9)
        return int(jobs) if jobs < self.trusted else self.trusted


class RunTimes:
    """The run times of all tasks that ran recently."""

    def __init__(self) -> None:
        """Start without tasks."""
        self._run_times: dict[str, Pace] = {}

    def __len__(self) -> int:
        """Return the number of known tasks."""
        return len(self._run_times)

    def ran(self, task: str, count: int, seconds: float) -> None:
        """Add the run time of *count* jobs of *task*, one or more, that took *seconds* together."""
        run_time = self._run_times.get(task)
        if run_time is None:
            if len(self._run_times) >= _TASKS_MAX:
                del self._run_times[next(iter(self._run_times))]
            run_time = self._run_times[task] = Pace()
        run_time.ran(count, seconds)

    def of(self, task: str) -> Pace:
        """Return the run times of *task*; they are empty if no job of it has ended yet."""
        return self._run_times.get(task) or Pace()
