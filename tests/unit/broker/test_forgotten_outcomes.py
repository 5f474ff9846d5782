"""Outcomes that are read once their neighbours are forgotten, or once they are out of date."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from svc.broker.commit import RECENT_EVENTS
from svc.broker.journal import MemoryJournal
from svc.broker.local import LocalBroker, LocalQueue
from svc.client.client import BrokerClient
from svc.domain import commands as c
from svc.domain.job import ErrorInfo, NewChunk, Terms
from svc.domain.limits import Limits
from tests.support.asking import record
from tests.support.clock import FakeClock
from tests.support.memory_journals import reopened

NOW = timedelta()
#: So many other outcomes push those of a test out of the host's memory.
OTHERS = RECENT_EVENTS + 50
LIMITS = Limits(retention_seconds=1.0)


class Site:
    """A queue that forgets succeeded jobs after a second, one consumer and one client."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.journal = MemoryJournal()
        self._open()

    def _open(self) -> None:
        self.queue = LocalQueue(self.journal, clock=self.clock, limits=LIMITS)
        self.broker = LocalBroker(self.queue)
        hello = c.Hello(1, "consumer", "w-1", "w", tasks=["m:good", "m:bad", "m:other"])
        self.consumer = LocalBroker(self.queue, lambda: hello)
        self.client = BrokerClient(lambda: LocalBroker(self.queue))

    def reopen(self) -> None:
        self.journal = reopened(self.journal)
        self._open()
        self.pass_time(LIMITS.reconnect_seconds)

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.broker.stats()

    def submit(self, number: int, task: str, origin: str = "o", key: str = "") -> str:
        self.broker.submit(origin, [NewChunk(number, Terms(task), [b""], key=key)])
        return f"{origin}-{number}"

    def run(self, count: int = 1) -> None:
        """Let *count* jobs end, each by a commit of its own."""
        for _ in range(count):
            (each,) = self.consumer.lease(limit=1, wait=NOW).grant.deliveries
            if each.terms.task == "m:bad":
                record(self.consumer, c.Nack(each.token, each.first, ErrorInfo("E", "no")))
            else:
                record(self.consumer, c.Ack(each.token, each.first, [b"\xa1r"], [0.0]))

    def end(self, number: int, task: str) -> str:
        job = self.submit(number, task, key=f"key-{number}")
        self.run()
        return job

    def forget_what_succeeded(self) -> None:
        """Let the retention pass, and let enough end that no event of before is remembered."""
        self.pass_time(2 * LIMITS.retention_seconds)
        for number in range(OTHERS):
            self.submit(number, "m:other", "others")
        self.run(OTHERS)
        self.pass_time(0.2)


def dead_before_good(site: Site) -> list[str]:
    """As the issue has it: one job that fails, and three good ones."""
    dead = site.end(0, "m:bad")
    for number in (1, 2, 3):
        site.end(number, "m:good")
    return [dead]


def dead_after_good(site: Site) -> list[str]:
    for number in range(3):
        site.end(number, "m:good")
    return [site.end(3, "m:bad")]


def good_between_dead(site: Site) -> list[str]:
    tasks = ("m:bad", "m:good", "m:bad", "m:good", "m:good", "m:bad")
    jobs = [site.end(number, task) for number, task in enumerate(tasks)]
    return [job for job, task in zip(jobs, tasks, strict=True) if task == "m:bad"]


def cancelled_between_dead(site: Site) -> list[str]:
    first = site.end(0, "m:bad")
    site.broker.cancel([site.submit(number, "m:good", key=f"key-{number}") for number in (1, 2)])
    return [first, site.end(3, "m:bad")]


def dead_twice(site: Site) -> list[str]:
    """The record of its first end is out of date."""
    dead = site.end(0, "m:bad")
    site.end(1, "m:good")
    site.broker.requeue([dead])
    site.run()
    return [dead]


def dead_of_several_commits(site: Site) -> list[str]:
    """Jobs of one chunk that end apart; the good ones stay as long as the dead one."""
    names = [site.submit(number, "m:bad") for number in range(3)]
    site.run(2)
    for number in (3, 4):
        site.end(number, "m:good")
    site.run()
    return names


HISTORIES = [
    dead_before_good,
    dead_after_good,
    good_between_dead,
    cancelled_between_dead,
    dead_twice,
    dead_of_several_commits,
]


@pytest.fixture
def site() -> Site:
    return Site()


def restarted(site: Site) -> None:
    site.reopen()


def live(site: Site) -> None:
    pass


@pytest.mark.parametrize("then", [live, restarted])
@pytest.mark.parametrize("history", HISTORIES)
def test_what_is_still_kept_can_be_read_in_every_way(
    site: Site, history: Callable[[Site], list[str]], then: Callable[[Site], None]
):
    kept = history(site)
    site.forget_what_succeeded()
    then(site)

    page = site.broker.feed(c.Feed("o"))
    everything = site.broker.feed(c.Feed())
    views = site.broker.get(kept)

    assert sorted(each.id for each in page.outcomes) == sorted(kept)
    assert sorted(each.id for each in everything.outcomes if each.id.startswith("o-")) == sorted(kept)
    assert sorted(each.id for each in site.broker.wait(kept, NOW)) == sorted(kept)
    assert sorted(each.id for each in site.client.follow(kept, 5.0)) == sorted(kept)
    assert [each.id for each in site.client.outcomes(kept, 5.0)] == kept
    assert all(each.attempts for each in views)
    assert not site.broker.feed(c.Feed("o", page.cursor)).outcomes


def test_outcomes_that_were_forgotten_do_not_hold_up_those_that_were_not(site):
    """A page of nothing but forgotten outcomes is no sign of the end."""
    first = site.end(0, "m:bad")
    for number in range(1, 40):
        site.end(number, "m:good")
    last = site.end(40, "m:bad")
    site.forget_what_succeeded()

    found, cursor = [], 0
    while page := site.broker.feed(c.Feed("o", cursor, limit=1)).outcomes:
        found += [each.id for each in page]
        cursor = site.broker.feed(c.Feed("o", cursor, limit=1)).cursor

    assert found == [first, last]


def test_a_job_that_was_made_ready_again_has_no_outcome_until_it_ends(site):
    dead = site.end(0, "m:bad")
    site.broker.requeue([dead])

    assert not site.broker.feed(c.Feed("o")).outcomes
    assert not site.broker.feed(c.Feed()).outcomes
    assert not site.broker.wait([dead], NOW)
    site.run()
    assert [each.id for each in site.broker.feed(c.Feed("o")).outcomes] == [dead]
    assert [each.id for each in site.broker.feed(c.Feed()).outcomes] == [dead]
