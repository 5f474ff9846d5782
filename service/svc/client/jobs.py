"""The handle of a submitted job: its id, and access to its outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from svc.domain.job import JobView
from svc.domain.lifecycle import JobState

if TYPE_CHECKING:
    from svc.client.session import Session


class Job:
    """A submitted job; it equals any other handle of the same job.

    Attributes:
        id: the job's id; valid in every client of the same manager.
    """

    __slots__ = ("_session", "id")

    def __init__(self, session: Session, job_id: str) -> None:
        """Hold the id; this makes no request."""
        self._session = session
        self.id = job_id

    def result(self, timeout: float | None = None) -> Any:
        """Return the job's result; wait up to *timeout* seconds, or without limit.

        Raises:
            JobFailed: the job is dead; the error has the consumer's traceback.
            JobCancelled: the job was cancelled.
            ResultTimeout: the job has not ended in time; it goes on.
        """
        return self._session.result(self.id, timeout)

    def cancel(self) -> bool:
        """Cancel the job if it is waiting; return whether it was cancelled."""
        return self._session.cancel([self.id]) == 1

    def view(self) -> JobView:
        """Describe the job: its state, the reason why it waits, its attempts.

        Raises:
            UnknownJob: its retention has passed.
        """
        return self._session.view(self.id)

    def done(self) -> bool:
        """Return whether the job has ended, well or not."""
        return JobState[self.view().state.upper()].finished

    def __eq__(self, other: object) -> bool:
        """Return whether *other* is a handle of the same job."""
        return isinstance(other, Job) and other.id == self.id

    def __hash__(self) -> int:
        """Return the hash of the id."""
        return hash(self.id)

    def __repr__(self) -> str:
        """Return `Job('id')`."""
        return f"Job({self.id!r})"
