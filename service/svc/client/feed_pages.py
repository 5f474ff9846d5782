"""Reads the outcomes of one origin page by page, and asks for the next page before the last one is used.

So the network takes no time if the caller is busy with a page for as long as a request takes. What is asked
for ahead does not wait at the manager, and is small: until the caller comes back, the answer is in the
buffers of the system, and a manager cuts off peers that do not read.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from svc.broker.base import Broker, expect
from svc.client.session import PAGE, Deadline, Session
from svc.domain import commands as c
from svc.domain.field_bounds import FEED_JOBS_MAX
from svc.domain.replies import Outcomes
from svc.errors import ServiceError

#: Outcomes in a page at most; it ends earlier if its bytes or its work are too many (`domain.handlers`).
FEED_PAGE = FEED_JOBS_MAX
#: Bytes that a page which is asked for ahead should have at most.
AHEAD_BYTES = 512 * 1024
#: Seconds in which such a page comes.
AHEAD_SECONDS = 10.0
#: Bytes of an outcome in a page beside its result: the run time, and the head of each.
_OUTCOME_BYTES = 16


class PageAhead(NamedTuple):
    """A request for a page that was sent: its connection, its number there, and the origin."""

    broker: Broker
    number: int
    origin: str


class FeedPages:
    """The pages of one feed; one thread reads them."""

    def __init__(self, session: Session) -> None:
        """Begin with the first outcome."""
        self._session = session
        self._cursor = 0
        #: Outcomes in the next page at most: few in the first one, so that it comes at once.
        self._limit = PAGE
        self._ahead: PageAhead | None = None

    def next(self, origin: str, seconds: float, deadline: Deadline) -> Outcomes:
        """Return the next outcomes of *origin*, folded, in order of recording; wait up to *seconds* for one.

        Raises:
            ManagerUnreachable: as `Session.wait`.
            ResultTimeout: likewise.
        """
        found = self._came(deadline)
        if found is None or not found.jobs:
            feed = c.Feed(origin, self._cursor, self._limit, seconds, folded=True)
            found = self._session.wait(lambda broker: self._read(broker, feed), deadline)
        return found

    def close(self) -> None:
        """Want no page that was asked for ahead."""
        if self._ahead is not None:
            self._ahead.broker.forget(self._ahead.number)
            self._ahead = None

    def _read(self, broker: Broker, feed: c.Feed) -> Outcomes:
        return self._turn(broker, feed.origin, broker.feed(feed))

    def _came(self, deadline: Deadline) -> Outcomes | None:
        """Return the page that was asked for ahead; None if it is lost, or its connection is in use."""
        ahead = self._ahead
        if ahead is None:
            return None
        try:
            return self._session.again(ahead.broker, partial(self._receive, ahead, deadline))
        except ServiceError:
            return None
        finally:
            if self._ahead is ahead:
                self.close()

    def _receive(self, ahead: PageAhead, deadline: Deadline, broker: Broker) -> Outcomes | None:
        received = broker.receive([ahead.number], deadline.slice(AHEAD_SECONDS))
        if received is None:
            return None
        return self._turn(broker, ahead.origin, expect(received[1][0], Outcomes))

    def _turn(self, broker: Broker, origin: str, page: Outcomes) -> Outcomes:
        """Read on after *page*: behind a long one with short results the next one is asked for at once."""
        self._cursor, self._limit = page.cursor, FEED_PAGE
        self._ahead = None
        jobs = page.jobs
        if jobs >= PAGE:
            size = sum(len(outcome.result) for outcome in page.outcomes)
            size += sum(sum(map(len, span.results)) for span in page.spans)
            each = _OUTCOME_BYTES + size // jobs
            limit = min(FEED_PAGE, AHEAD_BYTES // each)
            if limit >= PAGE:
                number = broker.send([c.Feed(origin, self._cursor, limit, folded=True)])
                self._ahead = PageAhead(broker, number, origin) if number else None
        return page
