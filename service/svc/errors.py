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
    │   ├── UnknownJob          no such job, or its retention has passed
    │   ├── UnknownTask         no worker knows the task (strict submit only)
    │   ├── UnknownWorker       no worker of that name is connected
    │   ├── Conflict            same key with other content, or a state that forbids it
    │   ├── LeaseLost           the attempt is no longer yours; nothing was changed
    │   ├── BadRequest          the manager could not read the request
    │   ├── ManagerBroken       the manager's state contradicts itself, and cannot be recovered in place
    │   └── JournalError        the journal cannot be opened, read or written
    │       └── RowMissing      a row that the manager refers to is not there
    ├── JobError                a job did not end well
    │   ├── JobFailed           it was given up on; carries the remote traceback
    │   ├── JobCancelled        it was cancelled
    │   └── ResultTimeout       it did not end within the time that was asked for
    └── TaskError               a task cannot be found, called or answered
        ├── TaskNotFound        no such module, function or registered name
        ├── ArgumentError       arguments do not fit the task's annotations
        └── CodecError          content cannot be encoded or decoded, or its codec is not accepted
            └── UntrustedPickle  a pickle that nobody with a pickle key made for this job

Every class has a ``code`` (its name on the wire), an ``exit_code`` (of the command line), and ``retryable``:
whether the same call may be made again.

If the standard library has a class for the same condition, the class here inherits from it as well:
``except ConnectionError``, ``PermissionError``, ``LookupError``, ``ValueError``, ``TimeoutError``,
``queue.Full`` or ``concurrent.futures.CancelledError`` catches it.
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
    """The manager's disk is nearly full, so new jobs are refused; free space and submit again."""

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


class BadRequest(BrokerError, ValueError):
    """The manager could not read the request."""

    code = "bad_request"


class JournalError(BrokerError):
    """The journal cannot be opened, read or written."""

    code = "journal"


class RowMissing(JournalError):
    """The journal has no such row; the disk is sound, so this is a fault of the manager."""

    code = "row_missing"


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


class TaskNotFound(TaskError, LookupError):
    """There is no such task."""

    code = "task_not_found"
    exit_code = 5


class ArgumentError(TaskError, ValueError):
    """The arguments do not fit the task."""

    code = "argument"
    exit_code = 2


class CodecError(TaskError, ValueError):
    """Content cannot be encoded or decoded, or its codec is not accepted here."""

    code = "codec"
    exit_code = 2


class UntrustedPickle(CodecError):
    """A pickle is not signed by a holder of a pickle key for this very job; it was not opened."""

    code = "untrusted_pickle"


def error_for(code: str, message: str) -> ServiceError:
    """Return an error of the class that has *code*; for an unknown code, a BrokerError."""
    return _by_code().get(code, BrokerError)(message)


def _by_code() -> dict[str, type[ServiceError]]:
    found: dict[str, type[ServiceError]] = {}
    pending: list[type[ServiceError]] = [ServiceError]
    while pending:
        kind = pending.pop()
        found[kind.code] = kind
        pending.extend(kind.__subclasses__())
    return found
