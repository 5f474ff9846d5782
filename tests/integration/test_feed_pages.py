"""Pages of a feed that are asked for ahead: nothing is lost or told twice, also if the request is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest

from svc.broker.manager import ManagerBroker
from svc.client.feed_pages import FeedPages
from svc.client.session import PAGE, Deadline, Session
from svc.domain import commands as c
from svc.domain import feeds
from svc.domain.field_bounds import FEED_JOBS_MAX
from svc.domain.job import NewChunk, Terms, job_id
from tests.support.manager import RunningManager, running_manager
from tests.support.workers import until

SECONDS = 45.0
ORIGIN = "feedpagestest"


@pytest.fixture
def manager() -> Iterator[RunningManager]:
    with running_manager() as manager:
        yield manager


class FeedBroker(ManagerBroker):
    """Keeps the feeds that it asks for."""

    def __init__(self, manager: RunningManager) -> None:
        super().__init__(manager.endpoint, manager.authkey)
        self.feeds: list[c.Feed] = []

    def _send(self, stream, commands, deadline, wait):
        self.feeds += (command for command in commands if isinstance(command, c.Feed))
        return super()._send(stream, commands, deadline, wait)


class Reader:
    """A session with its connections, and the pages that are read over them."""

    def __init__(self, manager: RunningManager) -> None:
        self.brokers: list[FeedBroker] = []

        def connect() -> FeedBroker:
            self.brokers.append(FeedBroker(manager))
            return self.brokers[-1]

        self.session = Session(connect, ("plain",), SECONDS)
        self.pages = FeedPages(self.session)

    def next(self, seconds: float = 0.0) -> list[str]:
        return list(self.pages.next(ORIGIN, seconds, Deadline(SECONDS)).results())

    def rest(self) -> list[str]:
        found: list[str] = []
        while page := self.next():
            found += page
        return found

    def feeds(self) -> list[c.Feed]:
        return [feed for broker in self.brokers for feed in broker.feeds]


@pytest.fixture
def reader(manager: RunningManager) -> Iterator[Reader]:
    reader = Reader(manager)
    yield reader
    reader.session.close()


def end(manager: RunningManager, first: int, stop: int, result: bytes = b"\x01") -> list[str]:
    """Have jobs end; return their ids."""
    with manager.broker() as client, manager.consumer() as consumer:
        client.submit(ORIGIN, [NewChunk(first, Terms("m:f"), [b"x"] * (stop - first))])
        while grant := consumer.lease(limit=PAGE, wait=timedelta(0)).grant.deliveries:
            for each in grant:
                count = len(each.bodies)
                consumer.settle([c.Ack(each.token, each.first, [result] * count, [0.1] * count)])
    return [job_id(ORIGIN, number) for number in range(first, stop)]


def test_the_next_page_is_asked_for_before_the_first_is_used(manager, reader):
    ended = end(manager, 0, 5 * PAGE)
    first = reader.next()
    assert first == ended[:PAGE]
    assert [feed.cursor == 0 for feed in reader.feeds()] == [True, False]
    assert first + reader.rest() == ended
    assert len(reader.brokers) == 1


def test_a_page_that_was_asked_for_is_read_anew_if_its_connection_is_lost(manager, reader):
    ended = end(manager, 0, 5 * PAGE)
    first = reader.next()
    reader.brokers[0]._discard()
    assert first + reader.rest() == ended


def test_a_page_that_was_asked_for_is_read_anew_if_another_call_uses_its_connection(manager, reader):
    ended = end(manager, 0, 5 * PAGE)
    first = reader.next()
    parked = c.Feed("another", 0, 1, SECONDS)
    thread = threading.Thread(
        target=lambda: reader.session.wait(lambda broker: broker.feed(parked), Deadline(None))
    )
    thread.start()
    until(lambda: len(reader.feeds()) == 3)
    assert first + reader.rest() == ended
    assert len(reader.brokers) == 2
    reader.brokers[0].interrupt()
    thread.join(SECONDS)
    assert not thread.is_alive()


def test_an_empty_page_that_was_asked_for_ahead_does_not_end_the_wait(manager, reader):
    ended = end(manager, 0, PAGE)
    assert reader.next() == ended
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.extend(reader.next(SECONDS)))
    thread.start()
    until(lambda: len(reader.feeds()) == 3)
    later = end(manager, PAGE, PAGE + 1)
    thread.join(SECONDS)
    assert found == later


def test_large_results_are_not_asked_for_ahead(manager, reader):
    ended = end(manager, 0, 3 * PAGE, b"\xc5\x04\x00" + bytes(1024))
    first = reader.next()
    assert len(reader.feeds()) == 1
    assert first + reader.rest() == ended


def test_a_page_that_nobody_wants_any_more_is_forgotten(manager, reader):
    end(manager, 0, 3 * PAGE)
    reader.next()
    reader.pages.close()
    reader.brokers[0].ping()
    assert not reader.brokers[0]._answers
    assert not reader.brokers[0]._sent


def test_pages_of_a_manager_with_a_lower_limit_are_read_to_the_end(manager, reader, monkeypatch):
    monkeypatch.setattr(feeds, "FEED_JOBS_MAX", PAGE)
    ended = end(manager, 0, 5 * PAGE)
    assert reader.rest() == ended
    assert len(reader.feeds()) >= 5


def test_a_long_page_ends_by_its_work(manager):
    """A page of folded successes is cheap for the manager, one of single outcomes is not."""
    end(manager, 0, 20 * PAGE)
    with manager.broker() as broker:
        folded, single = (
            broker.call([c.Feed(ORIGIN, 0, FEED_JOBS_MAX, folded=folded)])[0] for folded in (True, False)
        )
    assert sum(len(span.results) for span in folded.spans) == 20 * PAGE
    assert PAGE < len(single.outcomes) < 10 * PAGE
