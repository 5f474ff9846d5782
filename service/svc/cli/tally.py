"""How many of the jobs that a command waits for have ended, how fast, and how long the others may take."""

from __future__ import annotations

import math
from collections import Counter

from svc.cli.output import span
from svc.domain.job import Outcome
from svc.domain.job_view import Progress
from svc.domain.lifecycle import JobState

#: Seconds of which the rate is taken.
RATE_SECONDS = 30
#: The longest time that is told: a job may say that it is at 1 of 1e30.
CENTURY_SECONDS = 100 * 365.25 * 86400
#: Characters of the bar.
BAR_WIDTH = 24


class Tally:
    """Counts outcomes. The rate is by the times at which jobs ended, so those of long ago do not raise it.

    Attributes:
        total: the number of jobs.
        succeeded: those that have succeeded.
        failed: those that are dead or cancelled.
    """

    def __init__(self, total: int, now: float) -> None:
        """Expect the outcomes of *total* jobs; *now* is monotonic."""
        self.total = total
        self.succeeded = self.failed = 0
        self._began = now
        #: The time of the last end by the manager's clock, and when it was seen.
        self._last_end, self._seen = -math.inf, now
        self._first_end = math.inf
        self._ends: Counter[int] = Counter()

    @property
    def ended(self) -> int:
        """The number of jobs that have ended."""
        return self.succeeded + self.failed

    def add(self, outcome: Outcome, now: float) -> None:
        """Count an outcome."""
        if outcome.state == JobState.SUCCEEDED:
            self.succeeded += 1
        else:
            self.failed += 1
        at = outcome.finished_at
        self._ends[int(at)] += 1
        self._first_end = min(self._first_end, at)
        if at > self._last_end:
            self._last_end, self._seen = at, now

    def seconds(self, now: float) -> float:
        """Return for how long there was a wait."""
        return now - self._began

    def rate(self, now: float) -> float:
        """Return the jobs that ended in each of the last seconds."""
        if not self.ended:
            return 0.0
        end = self._last_end + now - self._seen
        begin = end - RATE_SECONDS
        for second in [second for second in self._ends if second < int(begin)]:
            del self._ends[second]
        return self._ends.total() / max(1.0, end - max(begin, self._first_end))

    def left(self, now: float) -> float | None:
        """Return the seconds until all have ended, if it goes on like this; None if nothing tells that."""
        rate = self.rate(now)
        return (self.total - self.ended) / rate if rate > 0 else None

    def line(self, now: float) -> str:
        """Return all of this as a line of text."""
        rate = self.rate(now)
        facts = [f"{self.succeeded:,} of {self.total:,} done", f"{self.failed:,} failed"]
        if self.ended:
            facts.append(f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.2g}/s")
        left = self.left(now)
        if left is not None and self.ended < self.total:
            facts.append(f"{span(math.ceil(left))} left")
        return ", ".join(facts)

    def bar(self, now: float) -> str:
        """Return `line` behind a bar."""
        return f"{bar_of(self.ended / self.total if self.total else 1.0)}  {self.line(now)}"

    def last_line(self, now: float) -> str:
        """Return what has become of the jobs."""
        jobs = "1 job" if self.total == 1 else f"{self.total:,} jobs"
        return f"{jobs}: {self.succeeded:,} done, {self.failed:,} failed, in {span(self.seconds(now))}"


def bar_of(share: float) -> str:
    """Return a bar of which a *share* from 0 to 1 is full, and the share in percent."""
    share = min(1.0, max(0.0, share))
    full = int(share * BAR_WIDTH)
    # No rounding: 100 % says that it is all.
    return f"[{'#' * full}{'-' * (BAR_WIDTH - full)}] {int(share * 100):3d} %"


class ProgressPace:
    """The pace of a single job, by the reports that were seen of it."""

    def __init__(self) -> None:
        """Begin without any."""
        self._first = (math.inf, 0.0)

    def line(self, progress: Progress, now: float) -> str:
        """Return a report as a line, with the time left if two reports tell that; *now* is monotonic."""
        share = progress.fraction
        if share is None:
            return progress_line(progress)
        first, since = self._first
        if share < first:  # the first report, or that of another attempt
            self._first = share, now
        if not first < share < 1:
            return progress_line(progress)
        left = min(CENTURY_SECONDS, (1 - share) * (now - since) / (share - first))
        return f"{progress_line(progress)}, {span(math.ceil(left))} left"


def progress_line(progress: Progress) -> str:
    """Return the report of one job as a line; without a total there is no bar."""
    amount = f"{progress.done:,.12g}" + ("" if progress.total is None else f" of {progress.total:,.12g}")
    text = f"{amount}: {progress.note}" if progress.note else amount
    return text if progress.fraction is None else f"{bar_of(progress.fraction)}  {text}"
