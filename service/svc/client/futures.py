"""The futures of an Executor, and the conversion of a job's outcome into a future's."""

from __future__ import annotations

import concurrent.futures
import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

from svc import codec
from svc.client.session import failure_of, value_of
from svc.domain.job import Outcome
from svc.domain.lifecycle import JobState
from svc.envelope import PickleKeys
from svc.errors import BrokerError, CodecError, JobFailed, ServiceError, UntrustedPickle
from svc.large import LargeReference

#: Returns the large result of a job, by its id.
Fetch = Callable[[str, LargeReference], Any]
#: Seconds for which a future remembers the answer to `running`.
RUNNING_SECONDS = 0.05


class RemoteTraceback(Exception):
    """The traceback of a consumer, as text; the cause of the error that was raised there."""

    def __str__(self) -> str:
        """Return the text, beginning on a new line."""
        return f"\n{super().__str__()}"


class Future(concurrent.futures.Future[Any]):
    """The future of a durable job; `Executor.future` can make it again from the job's id.

    Only the manager knows which jobs consumers run at the moment: `running()` asks it.

    Attributes:
        job_id: the job's id, in every process and for as long as the manager keeps the job.
        sent: whether the manager has answered the job's submit; until then the id may still change.
        is_own: whether the job was submitted by this executor.
    """

    def __init__(
        self, job_id: str, cancel: Callable[[Future], bool], is_leased: Callable[[str], bool]
    ) -> None:
        """Belong to the job *job_id*; *cancel* asks the manager to cancel it, *is_leased* if it is leased."""
        super().__init__()
        self.job_id = job_id
        self.sent = False
        self.is_own = False
        self._ask_to_cancel = cancel
        self._ask_if_leased = is_leased
        self._looked_at, self._leased = 0.0, False

    def running(self) -> bool:
        """Return whether a consumer has the job now: it runs, or is one of the few that come next there.

        It is False if the job waits (also for another attempt), if it has ended, and if the manager does not
        answer within the time of a call. Each call is a request to the manager (0.1 ms on one host). Calls
        within `RUNNING_SECONDS` of the last request for the same future return its answer again.
        """
        if self.done() or not self.sent:
            return False
        now = time.monotonic()
        if not self._looked_at or now - self._looked_at >= RUNNING_SECONDS:
            self._leased, self._looked_at = self._ask_if_leased(self.job_id), now
        return self._leased and not self.done()

    def cancel(self) -> bool:
        """Cancel the job at the manager if it has not ended; return whether it is cancelled.

        Unlike other futures, it can be cancelled while it runs: `svc.Cancelled` is raised in its task.
        Returns False if the manager does not answer within the time of a call.
        """
        if self.done():
            return self.cancelled()
        return self._ask_to_cancel(self)

    def end_as(self, outcome: Outcome, pickle_keys: PickleKeys | None, fetch: Fetch | None = None) -> None:
        """End like the job; results and errors are unpickled if *pickle_keys* verify them.

        *fetch* returns a large result.
        """
        try:
            self._end_as(outcome, pickle_keys, fetch)
        except BaseException as error:  # noqa: BLE001  # unpickling runs any code, and the future must end
            said = f"the result cannot be read: {type(error).__name__}: {error}"
            self.fail(error if isinstance(error, ServiceError) else CodecError(said))

    def _end_as(self, outcome: Outcome, pickle_keys: PickleKeys | None, fetch: Fetch | None) -> None:
        if outcome.state == JobState.SUCCEEDED:
            value = value_of(outcome, pickle_keys, fetch)
            with contextlib.suppress(concurrent.futures.InvalidStateError):
                self.set_result(value)
        elif outcome.state == JobState.CANCELLED:
            self.end_cancelled()
        else:
            self.fail(error_of(outcome, pickle_keys))

    def end_cancelled(self) -> None:
        """End as cancelled, and notify waiting threads."""
        # A second end means that the caller has ended the future itself, which is allowed.
        with contextlib.suppress(RuntimeError):
            if super().cancel():
                self.set_running_or_notify_cancel()

    def leave_to_parent(self) -> None:
        """Fail in a forked child, because the thread that would end this future runs in the parent."""
        # Another thread of the parent may have held its lock when the process forked.
        self._condition = threading.Condition()
        self.fail(
            BrokerError(
                f"the future of job {self.job_id} belongs to the process that this one was forked from; "
                "follow the job here by `Executor.future(job_id)`"
            )
        )

    def fail(self, error: Exception) -> None:
        """End with *error*."""
        with contextlib.suppress(concurrent.futures.InvalidStateError):
            self.set_exception(error)


def error_of(outcome: Outcome, pickle_keys: PickleKeys | None) -> Exception:
    """Return the error for a dead job; its cause is a `RemoteTraceback`.

    It is the exception that the task raised if that came as a pickle and *pickle_keys* verify it. Otherwise,
    or if the pickle cannot be read here, it is a JobFailed.
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
    try:
        error = codec.decode_exception(outcome.error.exception, pickle_keys.of(outcome.id))
        if error is not None:
            error.add_note(f"raised by job {outcome.id}")
    except UntrustedPickle:
        raise
    except BaseException:  # noqa: BLE001  # its own code may do anything; what the manager tells of it remains
        return None
    return error
