"""Exchanges outcomes for jobs with the manager, while jobs run side by side in a consumer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import NamedTuple

from svc.broker.base import Broker, Settlement
from svc.domain.replies import Delivery, Grant, Refused
from svc.errors import AuthenticationFailed, Forbidden, ManagerUnreachable, ProtocolMismatch
from svc.worker.failure import Failure
from svc.worker.outbox import AttemptLog, FinishedAttempt, Holdings, LeasedJobs, Outbox, give_back
from svc.worker.values import StoredResult
from svc.worker.wear import Wear

#: Errors that may pass by themselves: the manager restarts, is upgraded, or gets its right key back.
PASSING = (ManagerUnreachable, AuthenticationFailed, Forbidden, ProtocolMismatch)


class EndedJob(NamedTuple):
    """A job that has ended: its lease, its outcome, and the monotonic times of its begin and end.

    A cancelled one has no outcome: the manager has the cancel on record.
    """

    leased: LeasedJobs
    result: bytes | Failure | None
    started: float
    ended: float


@dataclass(frozen=True, slots=True)
class Exchange:
    """The connection of a consumer, for the thread that has it while jobs run side by side.

    Attributes:
        broker: the connection.
        task: the task of the jobs.
        outbox: the outcomes.
        holdings: the leases.
        log: the record of attempts.
        failed: takes an attempt that has failed.
        sent: takes note of outcomes that the manager has, and of those that it refused.
        pause: waits after an error of the connection.
        stopping: whether the worker stops.
        wear: counts the jobs for the recycling of the process; None if that has no limit.
    """

    broker: Broker
    task: str
    outbox: Outbox
    holdings: Holdings
    log: AttemptLog
    failed: Callable[[LeasedJobs, Failure, FinishedAttempt], None]
    sent: Callable[[Sequence[Settlement], Sequence[Refused]], None]
    pause: Callable[[Exception], None]
    stopping: Callable[[], bool]
    wear: Wear | None

    def turn(self, limit: int = 0, wait: float = 0.0) -> Grant | None:
        """Report outcomes, as many as a request holds, and take up to *limit* jobs.

        Return None if the manager is away. If there is nothing to do, this makes a broken connection again.
        """
        outcomes, grant = self.outbox.content(), Grant()
        refused: Sequence[Refused] = ()
        try:
            if limit:
                grant, refused = self.broker.lease(
                    limit=limit, wait=timedelta(seconds=wait), outcomes=outcomes, beside=self.task
                )
            elif outcomes:
                refused = self.broker.settle(outcomes)
            else:
                self.broker.ping()
        except PASSING as error:
            self.outbox.refuse_over(self.broker.welcome.max_job_bytes)
            self.pause(error)
            return None
        self.sent(outcomes, refused)
        self.holdings.add(grant.deliveries)
        return grant

    def settle(self, ended: EndedJob, *, listed: bool = False) -> None:
        """Take an outcome, to be reported by the next turn; successes of a list share lines of the log."""
        leased, result, started, at = ended
        delivery, seconds = leased.delivery, at - started
        number = delivery.first
        if isinstance(result, bytes):
            add = self.outbox.stored if isinstance(result, StoredResult) else self.outbox.succeeded
            add(delivery.token, number, result, seconds, at)
            if self.log.wants_successes:
                write = self.log.listed if listed else self.log.write
                write(leased.attempt(number, None, started, seconds))
        elif result is None:
            self.holdings.drop(delivery.token, number)
            self.log.write(leased.attempt(number, None, started, seconds)._replace(cancelled=True))
        else:
            self.failed(leased, result, leased.attempt(number, result, started, seconds))
        if self.wear is not None:
            self.wear.add(1)

    def keep_first(self, deliveries: Sequence[Delivery]) -> None:
        """Give back all jobs of a grant but the very first one."""
        for place, delivery in enumerate(deliveries):
            first = delivery.first + (place == 0)
            if first < delivery.first + len(delivery.bodies):
                self.give_back(delivery, first)

    def give_back(self, delivery: Delivery, number: int) -> None:
        """Give back the jobs of a lease from *number* on, with the next turn."""
        give_back(self.outbox, self.holdings, delivery.token, number)
