"""A consumer's outcomes on their way to the manager, the leases that it holds until then, and the log.

Each attempt that has ended is an outcome in the outbox and a line in the log.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import structlog

from svc.broker.base import Settlement
from svc.domain.commands import Ack, Held, Nack
from svc.domain.job import job_id
from svc.domain.replies import Delivery
from svc.worker.runner import Failure, ResolvedTask

#: The time at which an empty outbox is due.
NEVER = math.inf
#: Run time in seconds below which a success is added to a shared line of the log.
SHORT_SECONDS = 0.001
#: Seconds that an outcome may wait for the next request while short jobs follow each other.
_UNSENT_SECONDS = 0.005
#: Bytes of results above which no more are collected, because one message has to hold them all.
_UNSENT_BYTES = 1 << 20


class Outbox:
    """Outcomes that wait to be sent; consecutive successes of one lease become one Ack.

    Attributes:
        due_at: monotonic time after which the outcomes should no longer wait for the next request; `NEVER` if
            there is none.
        size: bytes of the results among them.
    """

    __slots__ = ("_ack", "_settlements", "due_at", "size")

    def __init__(self) -> None:
        self.due_at = NEVER
        self.size = 0
        self._settlements: list[Settlement] = []
        self._ack: Ack | None = None

    @property
    def full(self) -> bool:
        """Whether there is no room for more results."""
        return self.size > _UNSENT_BYTES

    def succeeded(self, token: int, number: int, result: bytes, seconds: float, now: float) -> None:
        """Add the result of one job."""
        self.size += len(result)
        ack = self._ack
        if ack is not None and ack.token == token and ack.first + len(ack.results) == number:
            ack.results.append(result)
            ack.seconds.append(seconds)
        else:
            ack = Ack(token, number, [result], [seconds])
            self.add(ack, now)
            self._ack = ack
        if self.size > _UNSENT_BYTES:
            self.due_at = 0.0

    def add(self, settlement: Settlement, now: float) -> None:
        """Add any other outcome."""
        self._ack = None
        self._settlements.append(settlement)
        if self.due_at == NEVER:
            self.due_at = now + _UNSENT_SECONDS

    def postpone(self, until: float) -> None:
        """Let no outcome be due before *until*, a monotonic time: the manager is away."""
        if self._settlements:
            self.due_at = until

    def content(self) -> Sequence[Settlement]:
        """Return all outcomes, oldest first; the returned sequence and its outcomes do not change later."""
        self._ack = None
        return tuple(self._settlements)

    def sent(self, settlements: Sequence[Settlement]) -> None:
        """Forget the outcomes that `content` returned, because the manager has them now."""
        del self._settlements[: len(settlements)]
        self.due_at = NEVER
        self.size = 0


class Holdings:
    """The leases of a consumer, which the hello of a new connection has to name.

    A job stays here until the manager has its outcome, and not only until it has run. A manager that was
    restarted meanwhile restores the named leases, and can then take the outcome.
    """

    __slots__ = ("_leases",)

    def __init__(self) -> None:
        self._leases: dict[int, Held] = {}

    def add(self, deliveries: Iterable[Delivery]) -> None:
        """Add new leases."""
        for delivery in deliveries:
            count = len(delivery.bodies)
            self._leases[delivery.token] = Held(delivery.token, delivery.origin, delivery.first, count)

    def drop(self, token: int, number: int) -> None:
        """Remove job *number* of a lease and all jobs after it."""
        held = self._leases.get(token)
        if held is not None:
            self._keep(token, held.first, min(number, held.first + held.count))

    def settled(self, settlements: Iterable[Settlement]) -> None:
        """Remove the jobs whose outcomes the manager has."""
        for settlement in settlements:
            held = self._leases.get(settlement.token)
            if held is None:
                continue
            if isinstance(settlement, Ack):
                self._keep(held.token, settlement.first + len(settlement.results), held.first + held.count)
            elif isinstance(settlement, Nack):
                self._keep(held.token, settlement.number + 1, held.first + held.count)
            else:
                self._keep(held.token, held.first, min(settlement.first, held.first + held.count))

    def all(self) -> list[Held]:
        """Return the leases that are held."""
        return list(self._leases.values())

    def _keep(self, token: int, first: int, stop: int) -> None:
        if first < stop:
            self._leases[token] = Held(token, self._leases[token].origin, first, stop - first)
        else:
            del self._leases[token]


class FinishedAttempt(NamedTuple):
    """One attempt that has ended. Times are in seconds.

    Attributes:
        delivery: the lease under which it ran.
        number: the job.
        failure: the failure, or None if it succeeded.
        waited: the time from ready to the start of the attempt.
        seconds: the run time.
        retry_in: the time until the retry, None if there is none.
    """

    delivery: Delivery
    number: int
    failure: Failure | None
    waited: float
    seconds: float
    retry_in: float | None = None


class LeasedJobs(NamedTuple):
    """The jobs of one lease, the task that runs them, and the monotonic time of their arrival."""

    delivery: Delivery
    task: ResolvedTask
    received: float

    def attempt(
        self, number: int, failure: Failure | None, started: float, seconds: float
    ) -> FinishedAttempt:
        """Return the attempt at job *number*, which *started* at a monotonic time and took *seconds*."""
        waited = self.delivery.waited + started - self.received
        return FinishedAttempt(self.delivery, number, failure, waited, seconds)


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
        self._first: FinishedAttempt | None = None
        #: The run times that share one line, that of `_first` included.
        self._seconds: list[float] = []

    def succeeded(self, attempt: FinishedAttempt) -> None:
        """Write the line of *attempt*; if it was short, begin a sum with it, to which `add` adds the next."""
        if attempt.seconds >= SHORT_SECONDS:
            self.write(attempt)
            return
        self._first, self._seconds = attempt, [attempt.seconds]

    def add(self, seconds: float) -> bool:
        """Add the success of the next job of the same lease; return False if no sum has begun."""
        if self._first is None:
            return False
        self._seconds.append(seconds)
        return True

    def end(self) -> None:
        """Write the line of the current sum, if there is one."""
        first, seconds = self._first, self._seconds
        if first is None:
            return
        self._first = None
        fields = _fields(first)
        if len(seconds) == 1:
            self._log.info("attempt_finished", outcome="succeeded", **fields)
            return
        self._log.info(
            "attempts_finished",
            outcome="succeeded",
            jobs=len(seconds),
            first_job_id=fields["job_id"],
            last_job_id=job_id(first.delivery.origin, first.number + len(seconds) - 1),
            task=fields["task"],
            queue=fields["queue"],
            wait_s=fields["wait_s"],
            run_s=round(sum(seconds), 6),
            longest_run_s=round(max(seconds), 6),
        )

    def write(self, attempt: FinishedAttempt) -> None:
        """Write the line of *attempt*, after the line of the current sum."""
        self.end()
        failure = attempt.failure
        if failure is None:
            self._log.info("attempt_finished", outcome="succeeded", **_fields(attempt))
            return
        retry_in = attempt.retry_in
        self._log.warning(
            "attempt_finished",
            **_fields(attempt),
            outcome=failure.cause.value,
            error_type=failure.error.type,
            error=failure.error.message,
            **({} if retry_in is None else {"retry_in_s": round(retry_in, 3)}),
        )


def _fields(attempt: FinishedAttempt) -> dict[str, Any]:
    delivery = attempt.delivery
    return {
        "job_id": job_id(delivery.origin, attempt.number),
        "task": delivery.terms.shown_task,
        "queue": delivery.terms.queue,
        "attempt": delivery.failures + delivery.crashes + delivery.interruptions + 1,
        "wait_s": round(attempt.waited, 6),
        "run_s": round(attempt.seconds, 6),
    }
