"""Results that are recorded together, and the events that take them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from svc.broker.journal import MemoryJournal
from svc.broker.local import LocalBroker, LocalQueue
from svc.domain import commands as c
from svc.domain import events as e
from svc.domain.admission import EVENT_JOBS_MAX
from svc.domain.job import NewChunk, Terms
from svc.domain.limits import Limits
from svc.domain.queue_state import (
    RANGE_OVERHEAD_BYTES,
    RESULT_OVERHEAD_BYTES,
    RESULTS_EVENT_BYTES,
)
from tests.support.asking import record
from tests.support.memory_journals import reopened
from tests.support.state_checks import check_journal, check_state

NOW = timedelta()
KB = 1000
MB = 1000 * KB


class Site:
    """A queue in memory, and a consumer that has leased all its jobs at once."""

    def __init__(self, jobs: int) -> None:
        self.journal = MemoryJournal()
        self.queue = LocalQueue(self.journal, limits=Limits(grant_jobs=jobs, reconnect_seconds=0.0))
        self.broker = LocalBroker(self.queue)
        hello = c.Hello(1, "consumer", "w-1", "w", tasks=["m:f"])
        self.consumer = LocalBroker(self.queue, lambda: hello)
        self.broker.submit("o", [NewChunk(0, Terms("m:f"), [b""] * jobs)])
        (self.delivery,) = self.consumer.lease(limit=jobs, wait=NOW).grant.deliveries

    def ack(self, first: int, results: list[bytes]) -> c.Ack:
        return c.Ack(
            self.delivery.token, first, results, [float(first + place) for place in range(len(results))]
        )

    def events(self) -> list[e.Succeeded]:
        return [event for _, event in self.journal.replay() if isinstance(event, e.Succeeded)]


def weight_of(event: e.Succeeded) -> int:
    results = [result for span in event.ranges for result in span.results]
    bare = sum(map(len, results))
    return bare + len(results) * RESULT_OVERHEAD_BYTES + len(event.ranges) * RANGE_OVERHEAD_BYTES


CASES = {
    "250 results of 40 kB in one ack": [[bytes(40 * KB)] * 250],
    "one large result among small ones": [[b"a"] * 3 + [bytes(5 * MB)] + [b"b"] * 3],
    "only large ones": [[bytes(2 * MB)] * 5],
    "thousands of small ones": [[b"x"] * EVENT_JOBS_MAX],
    "thousands of acks of one in one commit": [[b"y"]] * 1000,
    "acks of all sizes in one commit": [[b"z"] * 10, [bytes(700 * KB)], [b"", b"z"], [bytes(700 * KB)] * 3],
}


@pytest.mark.parametrize("acks", CASES.values(), ids=CASES.keys())
def test_no_event_holds_more_than_a_megabyte_of_results_unless_it_has_one_alone(acks):
    site = Site(sum(map(len, acks)))
    first, commands = 0, []
    for results in acks:
        commands.append(site.ack(first, results))
        first += len(results)

    replies = site.consumer.call(commands)

    assert [type(each).__name__ for each in replies] == ["Done"] * len(acks)
    for event in site.events():
        alone = sum(len(span.results) for span in event.ranges) == 1
        assert alone or weight_of(event) <= RESULTS_EVENT_BYTES
    everything = [result for results in acks for result in results]
    recorded = [result for event in site.events() for span in event.ranges for result in span.results]
    assert recorded == everything
    check_state(site.queue.host.state)
    check_journal(site.queue.host.state, site.journal)
    again = LocalQueue(reopened(site.journal))
    views = LocalBroker(again).stats().queues
    assert [each.succeeded for each in views] == [len(everything)]


def test_an_ack_that_was_cut_is_known_when_it_comes_again():
    site = Site(10)
    ack = site.ack(0, [bytes(400 * KB)] * 10)
    record(site.consumer, ack)
    count = len(site.events())
    assert count > 1

    record(site.consumer, ack)

    assert len(site.events()) == count


def test_the_rest_of_an_ack_of_which_a_part_is_known_is_recorded():
    site = Site(10)
    record(site.consumer, site.ack(0, [bytes(400 * KB)] * 4))

    record(site.consumer, site.ack(0, [bytes(400 * KB)] * 10))

    spans = [span for event in site.events() for span in event.ranges]
    assert sum(len(span.results) for span in spans) == 10
    assert [second for span in spans for second in span.seconds] == [float(number) for number in range(10)]
