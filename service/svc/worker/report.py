"""The log lines of attempts, and the figures in them."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import structlog

from svc.domain.job import job_id
from svc.domain.replies import Delivery
from svc.worker.runner import Attempts, Failure

#: Run time in seconds below which a success is added to a shared line.
SHORT_SECONDS = 0.001


class Attempt(NamedTuple):
    """One attempt that has ended. Times are in seconds.

    Attributes:
        delivery: the lease under which it ran.
        number: the job.
        result: its encoded result, or the failure.
        waited: the time from ready to the start of the attempt.
        seconds: the run time.
        retry_in: the time until the retry, None if there is none.
    """

    delivery: Delivery
    number: int
    result: bytes | Failure
    waited: float
    seconds: float
    retry_in: float | None = None


class Chunk(NamedTuple):
    """One lease: its jobs, the object that runs them, and the monotonic time of their arrival."""

    delivery: Delivery
    attempts: Attempts
    received: float

    def attempt(self, number: int, result: bytes | Failure, started: float, ended: float) -> Attempt:
        """Return the attempt at job *number*, with its start and end as monotonic times."""
        waited = self.delivery.waited + started - self.received
        return Attempt(self.delivery, number, result, waited, ended - started)


class AttemptLog:
    """Writes the record of each attempt: `attempt_finished`, or `attempts_finished` for short successes.

    A line costs about as much as running a job that does nothing. So consecutive jobs of one lease that
    succeed within `SHORT_SECONDS` each share one line, which names the first and the last of them.

    Attributes:
        wants_successes: whether the line of a successful attempt would be logged at all. Checking this first
            saves the cost of the line if not.
    """

    def __init__(self, worker: str, consumer: str) -> None:
        """Log for *consumer* of *worker*."""
        self._log = structlog.get_logger().bind(worker=worker, consumer=consumer)
        self.wants_successes: bool = self._log.is_enabled_for(logging.INFO)
        self._first: Attempt | None = None
        self._count = 0
        self._seconds = 0.0
        self._longest = 0.0

    def succeeded(self, attempt: Attempt) -> None:
        """Write the line of *attempt*; if it was short, begin a sum with it, to which `add` adds the next."""
        if attempt.seconds >= SHORT_SECONDS:
            self.write(attempt)
            return
        self._first, self._count = attempt, 1
        self._seconds = self._longest = attempt.seconds

    def add(self, seconds: float) -> bool:
        """Add the success of the next job of the same lease; return False if no sum has begun."""
        if not self._count:
            return False
        self._count += 1
        self._seconds += seconds
        self._longest = max(self._longest, seconds)
        return True

    def end(self) -> None:
        """Write the line of the current sum, if there is one."""
        first, count = self._first, self._count
        self._first, self._count = None, 0
        if first is None:
            return
        if count == 1:
            self._log.info("attempt_finished", outcome="succeeded", **_fields(first))
            return
        fields = _fields(first)
        self._log.info(
            "attempts_finished",
            outcome="succeeded",
            jobs=count,
            first_job_id=fields["job_id"],
            last_job_id=job_id(first.delivery.origin, first.number + count - 1),
            task=fields["task"],
            queue=fields["queue"],
            wait_s=fields["wait_s"],
            run_s=round(self._seconds, 6),
            longest_run_s=round(self._longest, 6),
        )

    def write(self, attempt: Attempt) -> None:
        """Write the line of *attempt*, after the line of the current sum."""
        self.end()
        if isinstance(attempt.result, Failure):
            self._log.warning("attempt_finished", **_fields(attempt), **_failure_fields(attempt))
        else:
            self._log.info("attempt_finished", outcome="succeeded", **_fields(attempt))


def _fields(attempt: Attempt) -> dict[str, Any]:
    delivery = attempt.delivery
    return {
        "job_id": job_id(delivery.origin, attempt.number),
        "task": delivery.terms.shown_task,
        "queue": delivery.terms.queue,
        "attempt": delivery.failures + delivery.crashes + delivery.interruptions + 1,
        "wait_s": round(attempt.waited, 6),
        "run_s": round(attempt.seconds, 6),
    }


def _failure_fields(attempt: Attempt) -> dict[str, Any]:
    failure = attempt.result
    if not isinstance(failure, Failure):
        return {}
    fields: dict[str, Any] = {
        "outcome": failure.cause.value,
        "error_type": failure.error.type,
        "error": failure.error.message,
    }
    return fields | ({} if attempt.retry_in is None else {"retry_in_s": round(attempt.retry_in, 3)})
