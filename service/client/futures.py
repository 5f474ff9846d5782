"""The futures of an Executor, and how the outcome of a job becomes that of its future."""

from __future__ import annotations

import concurrent.futures
import contextlib
from collections.abc import Callable
from typing import Any

from service import codec
from service.client.outcomes import failure_of, value_of
from service.domain.job import Outcome
from service.domain.lifecycle import JobState
from service.envelope import PickleKeys
from service.errors import JobFailed, ServiceError, UntrustedPickle, error_for


class RemoteTraceback(Exception):
    """The traceback of a consumer, as text: the cause of an error that was raised there."""

    def __str__(self) -> str:
        """Return the text, on lines of its own."""
        return f"\n{super().__str__()}"


class Future(concurrent.futures.Future[Any]):
    """The future of a durable job; it can be made again from its id by `Executor.future`.

    It is pending until it ends: which job a consumer runs just now is known to the manager alone, so
    `running()` is always False.

    Attributes:
        job_id: the job's id, in every process and for as long as the manager keeps the job.
    """

    def __init__(self, job_id: str, cancel: Callable[[Future], bool]) -> None:
        """Belong to the job *job_id*; *cancel* asks the manager to cancel it."""
        super().__init__()
        self.job_id = job_id
        self._ask_to_cancel = cancel

    def cancel(self) -> bool:
        """Cancel the job at the manager if it still waits there; tell whether it is cancelled.

        Returns False, too, where the manager does not answer within the time of a call.
        """
        if self.done():
            return self.cancelled()
        return self._ask_to_cancel(self)

    def end_as(self, outcome: Outcome, pickle_keys: PickleKeys | None) -> None:
        """End like the job did; results and errors are unpickled where *pickle_keys* verify them."""
        if outcome.state == JobState.CANCELLED:
            self.end_cancelled()
        elif outcome.state == JobState.SUCCEEDED:
            try:
                value = value_of(outcome, pickle_keys)
            except ServiceError as error:
                self.fail(error)
            else:
                with contextlib.suppress(concurrent.futures.InvalidStateError):
                    self.set_result(value)
        else:
            self.fail(error_of(outcome, pickle_keys))

    def end_cancelled(self) -> None:
        """End as cancelled, and tell those who wait."""
        # A second end means that the caller ended the future itself, which is its right.
        with contextlib.suppress(RuntimeError):
            if super().cancel():
                self.set_running_or_notify_cancel()

    def fail(self, error: Exception) -> None:
        """End with *error*."""
        with contextlib.suppress(concurrent.futures.InvalidStateError):
            self.set_exception(error)


def error_of(outcome: Outcome, pickle_keys: PickleKeys | None) -> Exception:
    """Return the error for a job that was given up on, caused by a `RemoteTraceback`.

    It is the very exception that the task raised where that came as a pickle and *pickle_keys* verify it;
    JobFailed otherwise, and where the pickle cannot be read here.
    """
    failed = failure_of(outcome)
    if not isinstance(failed, JobFailed):
        return failed
    try:
        error = _raised(outcome, pickle_keys) or failed
    except UntrustedPickle as untrusted:
        error = failed
        error.add_note(f"the exception itself is left out: {untrusted}")
    if failed.remote_traceback:
        error.__cause__ = RemoteTraceback(failed.remote_traceback)
    return error


def _raised(outcome: Outcome, pickle_keys: PickleKeys | None) -> Exception | None:
    if outcome.error is None or not outcome.error.exception or pickle_keys is None:
        return None
    error = codec.decode_exception(outcome.error.exception, pickle_keys.of(outcome.id))
    if error is not None:
        error.add_note(f"raised by job {outcome.id}")
    return error


def copied(error: ServiceError) -> ServiceError:
    """Return an error like *error*: futures must not share one, which would gather all their tracebacks."""
    return error_for(error.code, error.message)
