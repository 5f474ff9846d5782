"""A supervisor's reports that the manager has not answered yet."""

from __future__ import annotations

from svc.broker.base import Report
from svc.domain.commands import Checkpoint, Extend, JobProgress, Lost

#: Bytes of the checkpoints in one request, about.
_BYTES_MAX = 1 << 20
#: Jobs whose progress one request tells; older reports give way.
PROGRESS_MAX = 1000


class PendingReports:
    """Reports in their order. A checkpoint takes the place of an earlier one of the same job."""

    def __init__(self) -> None:
        """Start with none."""
        self._reports: dict[object, Report] = {}
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

    def keep(self, checkpoint: Checkpoint) -> None:
        """Add a checkpoint, or put it in the place of the one before."""
        self._reports[checkpoint.token, checkpoint.number] = checkpoint

    def keep_again(self, checkpoint: Checkpoint) -> None:
        """Add a checkpoint that was sent in vain, unless there is a newer one of the same job."""
        self._reports.setdefault((checkpoint.token, checkpoint.number), checkpoint)

    def tell(self, report: JobProgress) -> bool:
        """Add a report of progress; return whether it is the only one."""
        first = not self._progress
        self._progress[report.token, report.number] = report
        if len(self._progress) > PROGRESS_MAX:
            del self._progress[next(iter(self._progress))]
        return first

    def first(self, count: int) -> dict[object, Report]:
        """Return the first *count* reports at most, and fewer if they are large."""
        found: dict[object, Report] = {}
        size = 0
        for key, report in self._reports.items():
            size += len(report.data) if isinstance(report, Checkpoint) else 0
            if len(found) >= count or (found and size > _BYTES_MAX):
                break
            found[key] = report
        return found

    def take_checkpoints(self) -> list[Checkpoint]:
        """Remove and return the checkpoints."""
        found = [report for report in self._reports.values() if isinstance(report, Checkpoint)]
        for checkpoint in found:
            del self._reports[checkpoint.token, checkpoint.number]
        return found

    def take_progress(self) -> list[JobProgress]:
        """Remove and return the reports of progress."""
        found, self._progress = list(self._progress.values()), {}
        return found

    def answered(self, sent: dict[object, Report]) -> None:
        """Remove the reports that were *sent*, but for those that a newer one has replaced meanwhile."""
        for key, report in sent.items():
            if self._reports.get(key) is report:
                del self._reports[key]


def _is_about_jobs(report: Report) -> bool:
    if isinstance(report, Lost):
        return bool(report.token) or report.suspect
    return not isinstance(report, Extend)
