"""A supervisor's reports that the manager has not answered yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

from svc.broker.base import Report
from svc.domain.commands import Checkpoint, Extend, JobProgress, Lost, TellProgress
from svc.domain.replies import Reply

#: Takes the manager's answer to a checkpoint.
Answered = Callable[[Reply], None]

#: Bytes of the checkpoints in one request, about.
_BYTES_MAX = 1 << 20
#: Jobs whose progress one request tells, and those whose last report may wait; the oldest one gives way.
TOLD_MAX, PROGRESS_MAX = 250, 100_000


class KeptCheckpoint:
    """A checkpoint on its way to the manager, and all who are told of its record.

    Args:
        checkpoint: goes to the manager.
        answered: is told of the answer.
        awaited: whether somebody waits for it.
        earlier: those who wait for a checkpoint whose place this one takes.
    """

    __slots__ = ("_others", "checkpoint", "waiting")

    def __init__(
        self, checkpoint: Checkpoint, answered: Answered, *, awaited: bool, earlier: Sequence[Answered] = ()
    ) -> None:
        self.checkpoint = checkpoint
        #: Those who wait, in their order. Each is a thread of a task, so there are never many.
        self.waiting = [*earlier, answered] if awaited else [*earlier]
        self._others = () if awaited else (answered,)

    @property
    def key(self) -> tuple[int, int]:
        """The attempt that left it."""
        return self.checkpoint.token, self.checkpoint.number

    def answer(self, reply: Reply) -> None:
        """Pass the manager's answer on."""
        for answered in (*self.waiting, *self._others):
            answered(reply)


Pending = Report | KeptCheckpoint


class PendingReports:
    """Reports in their order. A checkpoint takes the place of an earlier one of the same job."""

    def __init__(self) -> None:
        """Start with none."""
        self._reports: dict[object, Pending] = {}
        self._count = 0
        self._progress: dict[tuple[int, int], JobProgress] = {}

    def __len__(self) -> int:
        """Return their number, without those of progress."""
        return len(self._reports)

    @property
    def about_jobs(self) -> int:
        """The number of those that tell of jobs, and not of the worker alone."""
        return sum(map(_is_about_jobs, self._reports.values()))

    def add(self, *reports: Report) -> None:
        """Add *reports* after all others."""
        for report in reports:
            self._count += 1
            self._reports[self._count] = report

    def keep(self, checkpoint: Checkpoint, answered: Answered, *, awaited: bool) -> None:
        """Add a checkpoint, or put it in the place of the one before.

        Whoever waits for that one is told of the record of either. Those who only would have been told of it
        are not: such a list would grow for as long as the manager is away.
        """
        before = self._reports.get((checkpoint.token, checkpoint.number))
        earlier = before.waiting if isinstance(before, KeptCheckpoint) else ()
        kept = KeptCheckpoint(checkpoint, answered, awaited=awaited, earlier=earlier)
        self._reports[kept.key] = kept

    def keep_again(self, kept: KeptCheckpoint) -> None:
        """Add a checkpoint that was sent in vain, unless there is a newer one of the same job."""
        newer = self._reports.setdefault(kept.key, kept)
        if newer is not kept and isinstance(newer, KeptCheckpoint):
            newer.waiting[:0] = kept.waiting

    def tell(self, report: JobProgress) -> None:
        """Add a report of progress, or put it in the place of the one before."""
        self._progress[report.token, report.number] = report
        if len(self._progress) > PROGRESS_MAX:
            del self._progress[next(iter(self._progress))]

    def first(self, count: int) -> dict[object, Pending]:
        """Return the first *count* reports at most, and fewer if they are large."""
        found: dict[object, Pending] = {}
        size = 0
        for key, report in self._reports.items():
            size += len(report.checkpoint.data) if isinstance(report, KeptCheckpoint) else 0
            if len(found) >= count or (found and size > _BYTES_MAX):
                break
            found[key] = report
        return found

    def take_checkpoints(self) -> list[KeptCheckpoint]:
        """Remove and return the checkpoints."""
        found = [report for report in self._reports.values() if isinstance(report, KeptCheckpoint)]
        for kept in found:
            del self._reports[kept.key]
        return found

    def first_progress(self) -> list[JobProgress]:
        """Return the reports of progress that have waited longest, as many as one request tells."""
        return list(islice(self._progress.values(), TOLD_MAX))

    def told(self, sent: Sequence[Report]) -> bool:
        """Remove the progress that *sent* has told, but for newer reports; return whether it left some."""
        told = [each for report in sent if isinstance(report, TellProgress) for each in report.reports]
        for each in told:
            if self._progress.get((each.token, each.number)) is each:
                del self._progress[each.token, each.number]
        return bool(told and self._progress)

    def answered(self, sent: dict[object, Pending]) -> None:
        """Remove the reports that were *sent*, but for those that a newer one has replaced meanwhile."""
        for key, report in sent.items():
            newer = self._reports.get(key)
            if newer is report:
                del self._reports[key]
            elif isinstance(newer, KeptCheckpoint) and isinstance(report, KeptCheckpoint):
                del newer.waiting[: len(report.waiting)]  # it has them first, and they have their answer


def command_of(report: Pending) -> Report:
    """Return what goes to the manager."""
    return report.checkpoint if isinstance(report, KeptCheckpoint) else report


def _is_about_jobs(report: Pending) -> bool:
    if isinstance(report, Lost):
        return bool(report.token) or report.suspect
    return not isinstance(report, Extend)
