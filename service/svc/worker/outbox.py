"""A consumer's outcomes on their way to the manager, the leases that it holds until then, and the log.

Each attempt that has ended is an outcome in the outbox and a line in the log.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import structlog

from svc.broker.base import Settlement
from svc.domain.commands import Ack, Checkpoint, Held, Nack, Release
from svc.domain.job import Cause, ErrorInfo, job_id
from svc.domain.replies import Delivery
from svc.worker.failure import Failure, result_too_large
from svc.worker.runner import ResolvedTask

#: The time at which an empty outbox is due.
NEVER = math.inf
#: Run time in seconds below which a success is added to a shared line of the log: a line takes 0.1 ms if
#: the caches are cold, as after a sleep. As much run time is read ahead, so few lines stand for more.
SHORT_SECONDS = 0.02
#: Seconds that an outcome may wait for the next request while short jobs follow each other; and while jobs
#: are asked for during the run of others: then each grant begins with a request that reports the last ones.
UNSENT_SECONDS, UNSENT_ASKING_SECONDS = 0.02, 0.05
#: Bytes of outcomes above which no more are collected.
_UNSENT_BYTES = 1 << 20
#: Bytes and number of the outcomes in one request: a message has bounds, and outcomes pile up while the
#: manager is away. A larger outcome is in a request of its own.
REQUEST_BYTES: Final = 4 * _UNSENT_BYTES
REQUEST_OUTCOMES: Final = 1000


class Outbox:
    """Outcomes that wait to be sent; consecutive successes of one lease become one Ack.

    Attributes:
        due_at: monotonic time after which the outcomes should no longer wait for the next request; `NEVER` if
            there is none.
        size: bytes of the results, errors and checkpoints among them.
        linger: seconds until one is due.
    """

    __slots__ = ("_ack", "_settlements", "due_at", "linger", "size")

    def __init__(self) -> None:
        self.due_at = NEVER
        self.linger = UNSENT_SECONDS
        self.size = 0
        self._settlements: list[Settlement] = []
        self._ack: Ack | None = None

    @property
    def full(self) -> bool:
        """Whether there is no room for more outcomes."""
        return self.size > _UNSENT_BYTES or len(self._settlements) > REQUEST_OUTCOMES

    def succeeded(
        self, token: int, number: int, result: bytes, seconds: float, now: float, peak: int = 0
    ) -> None:
        """Add the result of one job, with the most memory that it took if that was measured."""
        self.size += len(result)
        ack = self._ack
        if peak or self.size > _UNSENT_BYTES:  # a large result has an outcome of its own
            self._append(Ack(token, number, [result], [seconds], peaks=[peak] if peak else []), now)
        elif ack is not None and ack.token == token and ack.first + len(ack.results) == number:
            ack.results.append(result)
            ack.seconds.append(seconds)
        else:
            ack = Ack(token, number, [result], [seconds])
            self._append(ack, now)
            self._ack = ack
        if self.size > _UNSENT_BYTES:
            self.due_at = 0.0

    def stored(
        self, token: int, number: int, result: bytes, seconds: float, now: float, peak: int = 0
    ) -> None:
        """Add the result of one job whose value is stored already."""
        peaks = [peak] if peak else []
        # MessagePack takes no subclass of bytes.
        self.add(Ack(token, number, [bytes(result)], [seconds], [number], peaks), now)

    def add(self, settlement: Settlement, now: float) -> None:
        """Add any other outcome."""
        self.size += _weight(settlement)
        self._append(settlement, now)

    def _append(self, settlement: Settlement, now: float) -> None:
        self._ack = None
        self._settlements.append(settlement)
        if self.due_at == NEVER:
            self.due_at = now + self.linger

    def postpone(self, until: float) -> None:
        """Let no outcome be due before *until*, a monotonic time: the manager is away."""
        if self._settlements:
            self.due_at = until

    def content(self) -> Sequence[Settlement]:
        """Return the outcomes of the next request, oldest first; the sequence does not change later.

        These are all, unless they are more than one request holds.
        """
        self._ack = None
        settlements = self._settlements
        if self.size <= REQUEST_BYTES and len(settlements) <= REQUEST_OUTCOMES:
            return tuple(settlements)
        size = 0
        for count, settlement in enumerate(settlements[:REQUEST_OUTCOMES]):
            size += _weight(settlement)
            if count and size > REQUEST_BYTES:
                return tuple(settlements[:count])
        return tuple(settlements[:REQUEST_OUTCOMES])

    @property
    def is_over_one_request(self) -> bool:
        """Whether there are more outcomes than one request holds."""
        return len(self.content()) < len(self._settlements)

    def refuse_over(self, most: int) -> None:
        """Make a failure of a result with more than *most* bytes if it is first: it can never be sent.

        The manager may have got a smaller limit since the job ran.
        """
        first = self._settlements[0] if self._settlements else None
        if not isinstance(first, Ack) or len(first.results) != 1 or len(first.results[0]) <= most:
            return
        error = ErrorInfo("JobTooLarge", result_too_large(len(first.results[0]), most))
        peak = first.peaks[0] if first.peaks else 0
        seconds = first.seconds[0]
        nack = Nack(first.token, first.first, error, None, Cause.REFUSED, seconds, peak=peak)
        self.size += _weight(nack) - _weight(first)
        self._ack = None
        self._settlements[0] = nack

    def restore(self, settlements: Sequence[Settlement]) -> None:
        """Put outcomes back before all others: they were sent, and may not have arrived."""
        if settlements:
            self._settlements[:0] = settlements
            self.size += sum(map(_weight, settlements))
            self.due_at = 0.0

    def sent(self, settlements: Sequence[Settlement]) -> None:
        """Forget the outcomes that `content` returned, because the manager has them now."""
        del self._settlements[: len(settlements)]
        if self._settlements:  # the next request takes them
            self.due_at = 0.0
            self.size -= sum(map(_weight, settlements))
        else:
            self.due_at = NEVER
            self.size = 0


def _weight(settlement: Settlement) -> int:
    """Return about how many bytes an outcome has in a request."""
    if isinstance(settlement, Ack):
        return sum(map(len, settlement.results))
    if isinstance(settlement, Nack):
        error = settlement.error
        return len(error.message) + len(error.traceback) + len(error.exception)
    return len(settlement.data) if isinstance(settlement, Checkpoint) else 0


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
            elif isinstance(settlement, Release):
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
        cancelled: whether a cancel has ended it.
        peak: the most memory in bytes that it took, 0 if it was not measured.
    """

    delivery: Delivery
    number: int
    failure: Failure | None
    waited: float
    seconds: float
    retry_in: float | None = None
    cancelled: bool = False
    peak: int = 0


def give_back(outbox: Outbox, holdings: Holdings, token: int, number: int) -> None:
    """Give back the jobs of a lease from *number* on, with the next request; twice changes nothing."""
    holdings.drop(token, number)
    outbox.add(Release(token, number), time.monotonic())


class LeasedJobs(NamedTuple):
    """The jobs of one lease, the task that runs them, and the monotonic time of their arrival."""

    delivery: Delivery
    task: ResolvedTask
    received: float

    def attempt(
        self, number: int, failure: Failure | None, started: float, seconds: float, peak: int = 0
    ) -> FinishedAttempt:
        """Return the attempt at job *number*, which *started* at a monotonic time and took *seconds*."""
        waited = self.delivery.waited + started - self.received
        return FinishedAttempt(self.delivery, number, failure, waited, seconds, peak=peak)


class AttemptLog:
    """Writes the record of each attempt: `attempt_finished`, or `attempts_finished` for short successes.

    A line costs more than running a job that does nothing. So consecutive jobs of one lease that succeed
    within `SHORT_SECONDS` each share one line, which names the first and the last of them. It is written at
    the end of the lease, or when their outcomes are reported, if that is sooner.

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

    def listed(self, attempt: FinishedAttempt) -> None:
        """Add *attempt* to the sum if it is of the next job of the same origin and list, or begin another."""
        first = self._first
        origin, number = attempt.delivery.origin, attempt.number
        if first is None or (first.delivery.origin, first.number + len(self._seconds)) != (origin, number):
            self.end()
            self._first, self._seconds = attempt, [attempt.seconds]
        else:
            self._seconds.append(0.0)  # the time of the call was added with the first one

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
        tell = self._log.info if failure.snoozed else self._log.warning
        tell(
            "attempt_finished",
            **_fields(attempt),
            outcome="cancelled" if attempt.cancelled else failure.cause.value,
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
