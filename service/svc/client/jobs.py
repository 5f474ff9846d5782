"""What a caller holds of a submitted job: its id, and the way to its outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from svc.domain.job import JobView
from svc.domain.lifecycle import JobState

if TYPE_CHECKING:
    from svc.client.session import Session


class Job:
    """A submitted job. Equal to another handle of the same job.

    Attributes:
        id: the job's id; valid in every client of the same manager.
    """

    __slots__ = ("_session", "id")

    def __init__(self, session: Session, job_id: str) -> None:
        """Hold the id; nothing is asked of the manager."""
        self._session = session
        self.id = job_id

    def result(self, timeout: float | None = None) -> Any:
        """Return the job's result, waiting up to *timeout* seconds, or without limit.

        Raises:
            JobFailed: it was given up on; the error carries the consumer's traceback.
            JobCancelled: it was cancelled.
            ResultTimeout: it has not ended in time; it goes on regardless.
        """
        return self._session.result(self.id, timeout)

    def cancel(self) -> bool:
        """Cancel the job if it still waits; tell whether it was."""
        return self._session.cancel([self.id]) == 1

    def view(self) -> JobView:
        """Describe the job: state, why it waits, attempts.

        Raises:
            UnknownJob: its retention has passed.
        """
        return self._session.view(self.id)

    def done(self) -> bool:
        """Tell whether the job has ended, well or not."""
        return JobState[self.view().state.upper()].finished

    def __eq__(self, other: object) -> bool:
        """Tell whether *other* is a handle of the same job."""
        return isinstance(other, Job) and other.id == self.id

    def __hash__(self) -> int:
        """Return the hash of the id."""
        return hash(self.id)

    def __repr__(self) -> str:
        """Return `Job('id')`."""
        return f"Job({self.id!r})"
