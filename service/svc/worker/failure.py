"""The failure of an attempt: its description, its report, and how it is made of an exception."""

from __future__ import annotations

from dataclasses import dataclass

from svc import codec
from svc.domain.commands import Nack
from svc.domain.field_bounds import MESSAGE_MAX
from svc.domain.job import Cause, ErrorInfo
from svc.domain.limits import BODY_BYTES_MAX
from svc.domain.retry import RetryPolicy
from svc.envelope import Envelopes
from svc.errors import CodecError, LeaseLost, ServiceError, SoftTimeout, UntrustedPickle
from svc.worker.attempt_ends import GiveUp, Snooze, wanted_delay
from svc.worker.tracebacks import message_of, traceback_of, type_name_of


@dataclass(frozen=True, slots=True)
class Failure:
    """An attempt without a result; a permanent failure would happen again each time.

    Attributes:
        error: the description of the failure.
        cause: the reason, which decides the counter that is charged.
        permanent: whether a retry would be in vain.
        untrusted: whether the job is a pickle whose signature is missing or wrong.
        delay: the seconds until the next attempt that the task asked for; None for the backoff.
    """

    error: ErrorInfo
    cause: Cause
    permanent: bool
    untrusted: bool = False
    delay: float | None = None

    @property
    def snoozed(self) -> bool:
        """Whether the task put the job off, uncharged."""
        return self.cause is Cause.SNOOZED

    def retry_in(self, policy: RetryPolicy, failures: int, jitter: float) -> float | None:
        """Return the seconds until the next attempt, or None to give up.

        With this failure the job has failed *failures* times. *jitter* is as for `RetryPolicy.retry_in`.
        """
        if self.permanent:
            return None
        if self.snoozed:
            return self.delay
        usual = policy.retry_in(failures, jitter)
        return usual if usual is None or self.delay is None else self.delay

    def nack(self, token: int, number: int, retry_in: float | None, seconds: float, peak: int = 0) -> Nack:
        """Return the report of this failure of job *number*, after a run time in *seconds*.

        *peak* is the most memory in bytes that the attempt took, if it was measured.
        """
        cause = Cause.INTERRUPTED if self.snoozed else self.cause
        return Nack(token, number, self.error, retry_in, cause, seconds, self.snoozed, peak)


class AttemptFailed(Exception):
    """Raised by a task of svc's own that knows the *failure* better than an exception could tell."""

    def __init__(self, failure: Failure) -> None:
        """Fail the attempt with *failure*."""
        super().__init__(failure.error.message)
        self.failure = failure


def result_too_large(size: int, limit: int) -> str:
    """Return the message for a result of *size* bytes, of which the manager takes *limit* at most."""
    if limit < BODY_BYTES_MAX:
        remedy = "return less, or raise --max-job-bytes of the manager"
        return f"the result takes {size} bytes and the manager's limit is {limit}; {remedy}"
    remedy = "return less, or bytes or a file, which travel in pieces"
    return f"the result takes {size} bytes and no message carries over {BODY_BYTES_MAX}; {remedy}"


def refused(error: BaseException, subject: str = "") -> Failure:
    """Return the failure of a job that can never run, or not end well; or that may do so later."""
    passing = isinstance(error, LeaseLost) or (isinstance(error, ServiceError) and error.retryable)
    if passing or (isinstance(error, CodecError) and isinstance(error.__cause__, OSError)):
        return failure_of(error, None)
    # svc's own errors need no traceback; errors that the sender's or the task's code raised in a codec do.
    shown = error.__cause__ if isinstance(error, ServiceError) else error
    info = ErrorInfo(type_name_of(error), (subject + message_of(error))[:MESSAGE_MAX], traceback_of(shown))
    return Failure(info, Cause.REFUSED, permanent=True, untrusted=isinstance(error, UntrustedPickle))


def failure_of(error: BaseException, envelopes: Envelopes | None) -> Failure:
    """Return the failure that *error* of a task is, with a pickle of it if there are *envelopes*."""
    try:
        delay = wanted_delay(error)
    except BaseException as wrong:  # noqa: BLE001 - the task's own class may do anything
        return failure_of(wrong, envelopes)
    if isinstance(error, Snooze):
        info = ErrorInfo(type_name_of(error), message_of(error))
        return Failure(info, Cause.SNOOZED, permanent=False, delay=delay)
    # The sender of a pickle can read one; the reader decides whether it does.
    exception = b"" if envelopes is None else codec.encode_exception(error, envelopes)
    info = ErrorInfo(type_name_of(error), message_of(error), traceback_of(error), exception)
    cause = Cause.TIMED_OUT if isinstance(error, SoftTimeout) else Cause.FAILED
    return Failure(info, cause, permanent=isinstance(error, GiveUp), delay=delay)
