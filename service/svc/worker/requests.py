"""The requests of a consumer to the manager, which report outcomes and take the next jobs.

A consumer that is told to (`Grant.patience`) asks for its next jobs while it runs, and reads the answer when
it needs them; so neither the network nor a commit keeps it waiting. A request without an answer may be lost
with the connection. Its outcomes are reported again then, which changes nothing if they had arrived.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import timedelta

import structlog

from svc.broker.backoff import Backoff
from svc.broker.base import Broker, Settlement, expect
from svc.domain.commands import Lease, Release
from svc.domain.limits import GRANT_JOBS
from svc.domain.replies import AnyReply, Delivery, Grant, Refused
from svc.worker.exchange import PASSING
from svc.worker.outbox import NEVER, UNSENT_ASKING_SECONDS, UNSENT_SECONDS, Holdings, Outbox, give_back

#: How long the reply to reported outcomes may wait for the next jobs. Most jobs come by then, so a consumer
#: whose jobs come one at a time needs one request for each. The outcomes are recorded at once.
_REPORTING_WAIT = timedelta(seconds=0.1)
#: The run time that reading ahead may hide; the manager knows the run times of tasks. Four jobs of 5 ms, or
#: two of 10 ms, have room in it: each takes a little longer than it should.
READ_AHEAD = timedelta(seconds=0.022)
#: Bytes of results up to which the next jobs are taken before the results are durable. A new connection must
#: begin with these results, and has little time for that.
_EARLY_BYTES = 64 * 1024
#: Requests that may be without an answer while jobs run; the manager reads no more than 64.
_ASKED_MAX = 16
#: Seconds that an answer may be late before the consumer tells that it has no jobs left, by another request.
_LATE_SECONDS = 0.001
#: Seconds in which the manager answers, beyond the wait of a request.
_ANSWER_SECONDS = 10.0


class Requests:
    """The requests of one consumer.

    Args:
        outbox: the outcomes to be reported.
        holdings: the leases that it holds.
        lease_wait: seconds for which a request for jobs may wait at the manager.
        pause: waits after an error of the connection.
        backoff: the pauses between attempts to reach the manager.
        log: takes a warning if an outcome is refused.
    """

    def __init__(
        self,
        outbox: Outbox,
        holdings: Holdings,
        lease_wait: float,
        pause: Callable[[Exception], None],
        backoff: Backoff,
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        self._outbox = outbox
        self._holdings = holdings
        self._wait = timedelta(seconds=lease_wait)
        self._pause = pause
        self._backoff = backoff
        self._log = log
        #: Outcomes that the manager has received and may not have recorded yet, and the last request that was
        #: sent before the grant came that says so.
        self._unrecorded: Sequence[Settlement] = ()
        self._early_until = 0
        #: The requests that have no answer yet, with the outcomes in them, the oldest first.
        self._asked: dict[int, Sequence[Settlement]] = {}
        #: The last one that asks for jobs.
        self._newest = 0
        #: Those whose jobs were taken back before they came.
        self._recalled: set[int] = set()
        self._granted: deque[Grant] = deque()
        #: The token of the latest lease that has come.
        self._latest = 0

    @property
    def owed(self) -> bool:
        """Whether there are outcomes, or jobs to give back, that the manager may not have recorded."""
        asked = list(self._asked.values())
        return bool(self._outbox.due_at < NEVER or self._unrecorded or any(asked))

    @property
    def asks(self) -> bool:
        """Whether jobs may come that were asked for while others ran."""
        return bool(self._asked or self._granted)

    def brings_more(self, last: int) -> bool:
        """Return whether jobs may come that were granted after the lease *last* of the grant in hand.

        An answer may overtake another one, which waits for a commit. Then the jobs of a later lease may have
        been run already, and must not be taken back as those behind *last*.
        """
        return self.asks and last >= self._latest

    def take(self, broker: Broker) -> Grant:
        """Report outcomes and take the next jobs; wait long only if there is nothing to report.

        While the request waits, it is not known whether its outcomes have arrived.
        """
        if self.asks:
            try:
                return self._taken(broker)
            except PASSING:
                self.recover()
                return Grant()
        self._outbox.linger = UNSENT_SECONDS
        outcomes = self._outbox.content()
        try:
            turn = broker.take(self._lease(self._wait_with(outcomes)), outcomes)
        except PASSING as error:
            self._outbox.refuse_over(broker.welcome.max_job_bytes)
            self._pause(error)
            return Grant()
        self._outbox.sent(outcomes)
        self._sent(outcomes, turn.refused, recorded=not turn.grant.early)
        self._hold(turn.grant.deliveries)
        return turn.grant

    def ask(self, broker: Broker) -> None:
        """Ask for the next jobs, and report outcomes, before the jobs in hand are run."""
        self.look(broker)
        if not self.asks:
            self._post(broker, self._wait)
        self._outbox.linger = UNSENT_ASKING_SECONDS

    def look(self, broker: Broker) -> None:
        """Note the answers that have come; if requests are lost, keep their outcomes for another one."""
        try:
            while self._asked and self._receive(broker, 0.0) is not None:
                pass
        except PASSING:
            self.recover()

    def report(self, broker: Broker) -> Exception | None:
        """Report outcomes between two jobs; return the error if that failed."""
        if self.asks:
            self.look(broker)
            while len(self._asked) < _ASKED_MAX and self._report_aside(broker):
                if self._outbox.due_at == NEVER:
                    return None
        return self.flush(broker)

    def flush(self, broker: Broker) -> Exception | None:
        """Report outcomes, if there are any, and wait for the answer; return the error if that failed."""
        if self._asked:
            self.look(broker)
        while self._outbox.due_at < NEVER:
            if error := self._send(broker, broker.settle):
                return error
        return None

    def leave(self, broker: Broker) -> Exception | None:
        """Report all outcomes, and end the membership with the last ones; return the error if that failed."""
        while self._outbox.is_over_one_request:
            if error := self._send(broker, broker.settle):
                return error
        return self._send(broker, broker.leave)

    def _report_aside(self, broker: Broker) -> bool:
        """Report outcomes without a wait, and ask for jobs unless that is done; return whether it went."""
        outcomes = self._outbox.content()
        if not outcomes:
            return True
        if self._newest not in self._asked:
            return self._post(broker, self._wait) > 0
        number = broker.send(outcomes)
        if number:
            self._note_asked(number, outcomes)
        return number > 0

    def _send(
        self, broker: Broker, verb: Callable[[Sequence[Settlement]], Sequence[Refused]]
    ) -> Exception | None:
        """Report outcomes with a verb of the broker; those of a failed request go with the next one."""
        outcomes = self._outbox.content()
        try:
            refused = verb(outcomes)
        except PASSING as error:
            self.recover()
            self._outbox.refuse_over(broker.welcome.max_job_bytes)
            self._outbox.postpone(time.monotonic() + self._backoff.fail())
            return error
        self._outbox.sent(outcomes)
        self._sent(outcomes, refused)
        return None

    def note_sent(self, outcomes: Sequence[Settlement], refused: Sequence[Refused]) -> None:
        """Note outcomes that another part has reported."""
        self._outbox.sent(outcomes)
        self._sent(outcomes, refused)

    def recall(self) -> None:
        """Note that all jobs behind the one that ran were taken back, also those that are on their way."""
        self._recalled.update(self._asked)
        for grant in self._granted:
            self._give_back(grant.deliveries)
        self._granted = deque(grant for grant in self._granted if grant.pill)

    def withdraw(self, broker: Broker) -> Sequence[Delivery]:
        """End the waits of requests; return the jobs that came."""
        found: list[Delivery] = []
        while self.asks:
            if self._asked:
                broker.wake()
            try:
                found += self._taken(broker, more=False).deliveries
            except PASSING:
                self.recover()
        return found

    def recover(self) -> None:
        """Take the outcomes of requests without an answer for another request: the connection has ended."""
        for outcomes in reversed(self._asked.values()):
            self._outbox.restore(outcomes)
        self._asked.clear()
        self._recalled.clear()

    def _taken(self, broker: Broker, *, more: bool = True) -> Grant:
        """Return the jobs that were asked for; if none have come, ask for some now, and wait."""
        self.look(broker)
        if more and self._asked and not self._granted:
            self._receive(broker, _LATE_SECONDS, final=False)
        newest = 0
        while True:
            if self._granted:
                return self._granted.popleft()
            if not self._asked:
                return Grant()
            if more and not newest:
                newest = self._post(broker, self._wait_with(self._outbox.content()))
                if not newest:
                    self.recover()
                    return Grant()
            number = self._receive(broker, self._wait.total_seconds() + _ANSWER_SECONDS)
            if number == newest and not self._granted:
                return Grant()

    def _post(self, broker: Broker, wait: timedelta) -> int:
        """Send a request for jobs; return its number, or 0 if there is no connection."""
        outcomes, lease = self._outbox.content(), self._lease(wait)
        number = broker.send([*outcomes, lease], wait=lease.wait)
        if number:
            self._newest = number
            self._note_asked(number, outcomes)
        return number

    def _lease(self, wait: timedelta) -> Lease:
        """Return a request for jobs that also reports the outcomes in the outbox."""
        seconds, ahead = wait.total_seconds(), READ_AHEAD.total_seconds()
        early = self._outbox.size <= _EARLY_BYTES
        return Lease(GRANT_JOBS, seconds, ahead, early, running=True)

    def _note_asked(self, number: int, outcomes: Sequence[Settlement]) -> None:
        self._asked[number] = outcomes
        self._outbox.sent(outcomes)

    def _receive(self, broker: Broker, seconds: float, *, final: bool = True) -> int | None:
        """Note one answer, and return its number; as `Broker.receive`."""
        found = broker.receive(self._asked, seconds, final=final)
        if found is None:
            return None
        number, replies = found
        outcomes = self._asked.pop(number)
        recalled = number in self._recalled
        self._recalled.discard(number)
        grant = self._grant_in(replies, len(outcomes))
        refused = [reply for reply in replies[: len(outcomes)] if isinstance(reply, Refused)]
        self._sent(outcomes, refused, recorded=not grant.early, number=number)
        if recalled:
            self._give_back(grant.deliveries)
            grant = Grant([], grant.pill)
        if grant.deliveries or grant.pill:
            self._hold(grant.deliveries)
            self._granted.append(grant)
        return number

    def _hold(self, deliveries: Sequence[Delivery]) -> None:
        self._holdings.add(deliveries)
        if deliveries:
            self._latest = max(self._latest, deliveries[-1].token)

    def _grant_in(self, replies: Sequence[AnyReply], outcomes: int) -> Grant:
        """Return the grant behind the answers to *outcomes*; a report alone has none."""
        return expect(replies[-1], Grant) if len(replies) > outcomes else Grant()

    def _give_back(self, deliveries: Sequence[Delivery]) -> None:
        """Give back jobs that were taken back before they came, in case they were granted after that."""
        for delivery in deliveries:
            give_back(self._outbox, self._holdings, delivery.token, delivery.first)

    def _sent(
        self,
        outcomes: Sequence[Settlement],
        refused: Sequence[Refused],
        *,
        recorded: bool = True,
        number: int = 0,
    ) -> None:
        if self._backoff.since is not None:
            self._backoff.succeed()
        if recorded:
            self._holdings.settled((*self._unrecorded, *outcomes))
            self._unrecorded = ()
        elif number and number <= self._early_until:
            self._unrecorded = (*self._unrecorded, *outcomes)  # both grants may have left in one turn
        else:
            self._holdings.settled(self._unrecorded)
            self._unrecorded, self._early_until = outcomes, self._newest
        if refused and not any(isinstance(each, Release) for each in outcomes):
            # Jobs that are given back may have been taken back before.
            for refusal in refused:
                self._log.warning("outcome_refused", code=refusal.code, error=refusal.message)

    def _wait_with(self, outcomes: Sequence[Settlement]) -> timedelta:
        """Return how long a request that reports *outcomes* may wait."""
        return min(_REPORTING_WAIT, self._wait) if outcomes else self._wait
