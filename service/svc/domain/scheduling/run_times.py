"""The run times of tasks, and the time of a commit.

They limit the jobs in a grant that is read ahead: a consumer does not know the tasks of the next jobs.
"""

from __future__ import annotations

from svc.domain.limits import GRANT_JOBS

#: Weight of a new run time in the mean, unless it is a long one that is longer than the mean.
_WEIGHT = 0.3
#: Run time of a job that counts as long. About then, the jobs behind it are taken back.
LONG_SECONDS = 0.05
#: Tasks whose run times are remembered; a new task replaces the one that was first seen.
_TASKS_MAX = 1024
#: Weight of a new commit in the mean, and the seconds of one that count at most.
_COMMIT_WEIGHT, COMMIT_MAX = 0.1, 0.1


class RunTime:
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
        known = self.mean if self.mean < float("inf") else sample
        # A long job is believed at once: if the mean is too long, that costs a few calls; if it is too short,
        # other jobs have to wait. Others are weighed, as any of them takes long on a busy host at times.
        believed = 1.0 if sample > max(known, LONG_SECONDS) else _WEIGHT
        self.mean = known + believed * (sample - known)
        self.trusted = min(GRANT_JOBS, 2 * self.trusted)

    def fitting(self, seconds: float) -> int:
        """Return how many jobs in one grant run within *seconds*; 0 if not even one is sure to."""
        if self.mean > seconds:
            return 0
        jobs = seconds / max(self.mean, 1e-9)
        return int(jobs) if jobs < self.trusted else self.trusted


class RunTimes(dict[str, RunTime]):
    """The run times of all tasks that ran recently.

    Attributes:
        commit: the mean time in seconds until a commit is durable. A grant may wait for it: the manager
            answers nobody while its own disk syncs, and no report before other hosts have confirmed it.
    """

    commit = 0.0

    def committed(self, seconds: float) -> None:
        """Add a commit that took some *seconds*."""
        self.commit += _COMMIT_WEIGHT * (min(seconds, COMMIT_MAX) - self.commit)

    def ran(self, task: str, count: int, seconds: float) -> None:
        """Add the run time of *count* jobs of *task*, one or more, that took *seconds* together."""
        run_time = self.get(task)
        if run_time is None:
            if len(self) >= _TASKS_MAX:
                del self[next(iter(self))]
            run_time = self[task] = RunTime()
        run_time.ran(count, seconds)

    def of(self, task: str) -> RunTime:
        """Return the run times of *task*; they are empty if no job of it has ended yet."""
        return self.get(task) or RunTime()
