"""Every error that svc raises on purpose, under one root.

::

    ServiceError
    ├── ConfigurationError      a setting is missing, unknown or contradictory
    ├── BrokerError             the queue did not do what was asked
    │   ├── ManagerUnreachable  no connection within the deadline            (safe to retry)
    │   ├── ProtocolMismatch    the other side speaks another version
    │   ├── AuthenticationFailed  wrong or missing authkey
    │   ├── Forbidden           the key's role may not do this
    │   ├── QueueFull           a bound was reached                          (safe to retry later)
    │   ├── JournalFull         the manager's disk is nearly full            (safe to retry later)
    │   ├── Draining            submissions are refused while a drain is on  (safe to retry later)
    │   ├── JobTooLarge         arguments over the size limit
    │   ├── LargeValueLost      the manager does not have it, or not all of it (safe to submit again)
    │   ├── UnknownJob          no such job, or its retention has passed
    │   ├── UnknownTask         no worker knows the task (strict submit only)
    │   ├── UnknownWorker       no worker of that name is connected
    │   ├── Conflict            same key with other content, or a state that forbids it
    │   ├── LeaseLost           the attempt is no longer yours; nothing was changed
    │   ├── StreamTooLong       a job gives more partial results than the manager keeps
    │   ├── BadRequest          the manager could not read the request
    │   ├── ManagerBroken       the manager's state contradicts itself, and cannot be recovered in place
    │   └── JournalError        the journal cannot be opened, read or written
    │       ├── RowMissing      a row that the manager refers to is not there
    │       ├── JournalUnreachable  the servers that keep the journal do not answer (safe to retry)
    │       ├── Deposed         another manager leads the journal from now on
    │       ├── JournalMoved    the journal was moved to another place
    │       └── CopyIncomplete  it is a copy of another journal that is not complete
    ├── JobError                a job did not end well
    │   ├── JobFailed           it was given up on; carries the remote traceback
    │   ├── JobCancelled        it was cancelled
    │   ├── StreamRestarted     another attempt gives its partial results anew
    │   └── ResultTimeout       it did not end within the time that was asked for
    └── TaskError               a task cannot be found, called or answered
        ├── SoftTimeout         it runs longer than its soft timeout; raised in the task itself
        ├── TaskNotFound        no such module, function or registered name
        ├── ArgumentError       arguments do not fit the task's annotations
        ├── BadOutcomes         a task with a batch did not return an outcome for each job
        ├── OutsideJob          code asks for its job, and no job runs there
        └── CodecError          content cannot be encoded or decoded, or its codec is not accepted
            └── UntrustedPickle  a pickle that nobody with a pickle key made for this job

``Cancelled`` is raised in a running task, and is no error of anybody: it has another root, BaseException.

Every class has a ``code`` (its name on the wire), an ``exit_code`` (of the command line), and ``retryable``:
whether the same call may be made again. A class of the standard library for the same condition is a base:
``except ConnectionError``, ``PermissionError``, ``LookupError``, ``ValueError`` or ``queue.Full`` catches it.
"""

from __future__ import annotations

import queue
from collections.abc import Sequence
from concurrent.futures import CancelledError
from typing import ClassVar


class ServiceError(Exception):
    """Root of all errors that svc raises on purpose."""

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    retryable: ClassVar[bool] = False

    def __init__(self, message: str = "") -> None:
        """Set the message; without one, use the first line of the class docstring."""
        super().__init__(message or (type(self).__doc__ or "").partition("\n")[0])

    @property
    def message(self) -> str:
        """One clear sentence; if there is a remedy, it says so."""
        return str(self)


class ConfigurationError(ServiceError, ValueError):
    """A setting is missing, unknown or contradictory."""

    code = "configuration"
    exit_code = 2


class BrokerError(ServiceError):
    """The queue did not do what was asked."""

    code = "broker"


class ManagerUnreachable(BrokerError, ConnectionError):
    """The manager did not answer in time."""

    code = "unreachable"
    exit_code = 3
    retryable = True


class ProtocolMismatch(BrokerError, ConnectionError):
    """The manager speaks another version of the protocol; upgrade the older side."""

    code = "protocol"
    exit_code = 3


class AuthenticationFailed(BrokerError, PermissionError):
    """The authkey was refused."""

    code = "authentication"
    exit_code = 4


class Forbidden(BrokerError, PermissionError):
    """The key is not for this: its role may do other things."""

    code = "forbidden"
    exit_code = 4


class QueueFull(BrokerError, queue.Full):
    """The queue has reached its bound; submit again when it has drained a little."""

    code = "queue_full"
    exit_code = 9
    retryable = True


class JournalFull(BrokerError):
    """The manager's disk or stream is nearly full, so new jobs are refused; free space and submit again."""

    code = "journal_full"
    exit_code = 9
    retryable = True


class Draining(BrokerError):
    """The service is draining and accepts no new jobs; run `svc resume` first."""

    code = "draining"
    exit_code = 9
    retryable = True


class JobTooLarge(BrokerError, ValueError):
    """The job is larger than the manager's limit."""

    code = "job_too_large"
    exit_code = 2


class LargeValueLost(BrokerError, LookupError):
    """The manager does not have a large value, or not all of it."""

    code = "large_value_lost"
    exit_code = 5
    retryable = True


class UnknownJob(BrokerError, LookupError):
    """There is no such job, or its retention time has passed."""

    code = "unknown_job"
    exit_code = 5


class UnknownTask(BrokerError, LookupError):
    """No connected worker knows this task."""

    code = "unknown_task"
    exit_code = 5


class UnknownWorker(BrokerError, LookupError):
    """No worker of that name is connected."""

    code = "unknown_worker"
    exit_code = 5


class Conflict(BrokerError):
    """The request contradicts what is already there."""

    code = "conflict"
    exit_code = 6


class LeaseLost(BrokerError):
    """The lease has expired or was superseded; the outcome was not recorded."""

    code = "lease_lost"
    exit_code = 6


class StreamTooLong(BrokerError, ValueError):
    """The job gives more partial results than the manager keeps."""

    code = "stream_too_long"
    exit_code = 2


class BadRequest(BrokerError, ValueError):
    """The manager could not read the request."""

    code = "bad_request"
    exit_code = 2


class JournalError(BrokerError):
    """The journal cannot be opened, read or written."""

    code = "journal"


class RowMissing(JournalError):
    """The journal has no such row; the disk is sound, so this is a fault of the manager."""

    code = "row_missing"


class JournalUnreachable(JournalError, ConnectionError):
    """The servers that keep the journal do not answer, or not enough of them are left."""

    code = "journal_unreachable"
    exit_code = 3
    retryable = True


class Deposed(JournalError):
    """Another manager leads the journal from now on; this one has written nothing since."""

    code = "deposed"
    exit_code = 6


class JournalMoved(JournalError):
    """The journal was moved to another place, and no manager may serve it here."""

    code = "journal_moved"
    exit_code = 6


class CopyIncomplete(JournalError):
    """The journal is a copy of another one that is not complete; no manager may serve it."""

    code = "copy_incomplete"
    exit_code = 6


class ManagerBroken(BrokerError):
    """The manager's state contradicts itself, and cannot be recovered in place."""

    code = "manager_broken"


class JobError(ServiceError):
    """A job did not end well."""

    code = "job"
    exit_code = 8


class JobFailed(JobError):
    """The job was given up on.

    Attributes:
        job_id: the job's id.
        type: the name of the exception's class, such as `ZeroDivisionError`; empty if it is not known.
        message: the exception's message; `str()` of this error is a whole sentence, with the job's id.
        attempts: the number of attempts, including interrupted ones; 0 if it is not known.
        remote_traceback: the traceback from the consumer, as text.
    """

    code = "job_failed"

    def __init__(
        self,
        text: str = "",
        *,
        job_id: str = "",
        type: str = "",  # noqa: A002 - the name of the attribute
        message: str | None = None,
        attempts: int = 0,
        remote_traceback: str = "",
    ) -> None:
        """Set the text of the error, and the known facts about the job."""
        super().__init__(text)
        self.job_id = job_id
        self.type = type
        self.attempts = attempts
        self.remote_traceback = remote_traceback
        self._message = message

    @property
    def message(self) -> str:
        """The message of the exception that the last attempt raised."""
        return str(self) if self._message is None else self._message


class JobCancelled(JobError, CancelledError):
    """The job was cancelled."""

    code = "job_cancelled"


class StreamRestarted(JobError):
    """Another attempt at the job gives its partial results anew; read them from the beginning.

    Attributes:
        job_id: the job's id.
        number: the number of the new stream.
        attempt: the number of the attempt that gives it.
    """

    code = "stream_restarted"

    def __init__(self, text: str = "", *, job_id: str = "", number: int = 0, attempt: int = 0) -> None:
        """Say *text*, and carry what is known of the new stream."""
        super().__init__(text)
        self.job_id = job_id
        self.number = number
        self.attempt = attempt


class ResultTimeout(JobError, TimeoutError):
    """The job did not end within the time that was asked for; it goes on regardless.

    Attributes:
        job_id: the job's id; of several the first one that has not ended.
        job_ids: the ids of all that have not ended.
        reason: why the job has not ended, such as `waits: no worker is connected`; empty if it is not known.
    """

    code = "result_timeout"
    exit_code = 124
    retryable = True

    def __init__(self, text: str = "", *, job_ids: Sequence[str] = (), reason: str = "") -> None:
        """Say *text*, and carry what is known of the jobs."""
        super().__init__(text)
        self.job_ids = tuple(job_ids)
        self.job_id = self.job_ids[0] if self.job_ids else ""
        self.reason = reason


class TaskError(ServiceError):
    """A task cannot be found, called or answered."""

    code = "task"


class SoftTimeout(TaskError, TimeoutError):
    """The attempt has run longer than its soft timeout; clean up and end, or it may be killed."""

    code = "soft_timeout"


class Cancelled(BaseException):
    """The job was cancelled while it runs; clean up and end, before the grace is over.

    Raised in the task itself, as asyncio raises its own error of that kind. It is no `Exception`, so that a
    task does not catch it by accident. To catch it for good saves nothing: no result counts any more.
    """


class TaskNotFound(TaskError, LookupError):
    """There is no such task."""

    code = "task_not_found"
    exit_code = 5


class ArgumentError(TaskError, ValueError):
    """The arguments do not fit the task."""

    code = "argument"
    exit_code = 2


class OutsideJob(TaskError, RuntimeError):
    """No job runs here."""

    code = "outside_job"


class BadOutcomes(TaskError, ValueError):
    """A task with a batch did not return a list with one outcome for each job."""

    code = "bad_outcomes"


class CodecError(TaskError, ValueError):
    """Content cannot be encoded or decoded, or its codec is not accepted here."""

    code = "codec"
    exit_code = 2


class UntrustedPickle(CodecError):
    """A pickle is not signed by a holder of a pickle key for this very job; it was not opened."""

    code = "untrusted_pickle"
