"""The one log line of an attempt, and the numbers that go into it."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import structlog

from service.domain.job import job_id
from service.domain.replies import Delivery
from service.worker.runner import Failure


class Attempt(NamedTuple):
    """One attempt that has ended. Times are in seconds.

    Attributes:
        delivery: the lease under which it ran.
        number: the job.
        result: its encoded result, or why there is none.
        waited: from ready to the start of the attempt.
        seconds: the run time.
        retry_in: after which time it is tried again, None for never.
    """

    delivery: Delivery
    number: int
    result: bytes | Failure
    waited: float
    seconds: float
    retry_in: float | None = None


class AttemptLog:
    """Writes `attempt_finished`, the canonical record of an attempt.

    Attributes:
        wants_successes: whether anyone would see the line of an attempt that succeeded. Asking first
            saves the cost of the line where nobody does.
    """

    def __init__(self, worker: str, consumer: str) -> None:
        """Log in the name of *consumer* of *worker*."""
        self._log = structlog.get_logger().bind(worker=worker, consumer=consumer)
        self.wants_successes: bool = self._log.is_enabled_for(logging.INFO)

    def write(self, attempt: Attempt) -> None:
        """Write the line of *attempt*."""
        if isinstance(attempt.result, Failure):
            self._log.warning("attempt_finished", **_fields(attempt), **_failure_fields(attempt))
        else:
            self._log.info("attempt_finished", outcome="succeeded", **_fields(attempt))


def _fields(attempt: Attempt) -> dict[str, Any]:
    delivery = attempt.delivery
    return {
        "job_id": job_id(delivery.origin, attempt.number),
        "task": delivery.terms.task,
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
