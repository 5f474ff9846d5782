"""The header of a job is a column of its chunk: it makes no chunk of its own, and is kept as the body is."""

from __future__ import annotations

import msgspec
import pytest

from svc.domain import events as e
from svc.domain import replies as r
from svc.domain.admission import EVENT_JOBS_MAX
from svc.domain.chunk import BODY_OVERHEAD_BYTES
from svc.domain.job import NewChunk, Terms
from svc.domain.limits import Limits
from tests.unit.domain.test_columns import restarted, submit
from tests.unit.domain.test_grown_chunks import Queue, kinds, merge

TERMS = Terms("m:f")
COUNT = 4


def header(number: int) -> bytes:
    return b"h%d" % number if number % 2 == 0 else b""


def ones() -> list[NewChunk]:
    numbers = range(COUNT)
    return [NewChunk(n, TERMS, [b"%d" % n], headers=[header(n)] if header(n) else []) for n in numbers]


def headers(queue: Queue, count: int) -> list[bytes]:
    deliveries = queue.lease(count)
    return [each for delivery in deliveries for each in delivery.headers or [b""] * len(delivery.bodies)]


@pytest.fixture(params=[64 * 1024 * 1024, 0], ids=["in memory", "in the journal"])
def queue(request: pytest.FixtureRequest) -> Queue:
    return Queue(Limits(window_bytes=request.param))


@pytest.mark.parametrize("together", [True, False], ids=["in one command", "one by one"])
def test_jobs_of_different_headers_share_a_chunk_and_keep_their_own(queue, together):
    for command in [ones()] if together else [[one] for one in ones()]:
        submit(queue, command)

    assert queue.chunks() == [("o", 0, COUNT)]
    for each in (restarted(queue), queue):
        assert headers(each, COUNT) == [header(number) for number in range(COUNT)]


def test_headers_survive_a_merge_and_the_restart_after_it(queue):
    for one in ones():
        submit(queue, [one])
    merge(queue)

    assert kinds(queue) == ["Merged"]
    for each in (restarted(queue), queue):
        assert headers(each, COUNT) == [header(number) for number in range(COUNT)]


def test_a_chunk_that_is_split_into_several_events_keeps_its_headers(queue):
    count = EVENT_JOBS_MAX + 1
    numbers = range(count)
    submit(queue, [NewChunk(0, TERMS, [b""] * count, headers=[header(number) for number in numbers])])

    got: list[bytes] = []
    while found := headers(queue, 256):
        got += found
    assert got == [header(number) for number in numbers]


def test_jobs_without_headers_have_none_in_the_journal_and_in_a_delivery(queue):
    submit(queue, [NewChunk(0, TERMS, [b"0"])])

    ((_, event),) = queue.journal.replay()
    assert isinstance(event, e.Submitted)
    assert event.headers == []
    assert queue.lease(1)[0].headers == []


def test_headers_take_their_share_of_the_window():
    queue = Queue(Limits(window_bytes=2 * (BODY_OVERHEAD_BYTES + 100)))
    for origin in "abc":
        submit(queue, [NewChunk(0, TERMS, [b""], headers=[b"h" * 100])], origin=origin)

    assert [chunk.in_memory for chunk in queue.state.ledger.chunks.values()] == [True, True, False]


def test_events_and_deliveries_of_the_last_release_have_no_headers():
    older = msgspec.msgpack.encode(["submitted", 1.0, "o", 0, TERMS, [b"0"], None, "", [], [], None])
    event = msgspec.msgpack.decode(older, type=e.AnyEvent)
    assert isinstance(event, e.Submitted)
    assert event.headers == []
    delivery = msgspec.msgpack.decode(msgspec.msgpack.encode([1, "o", 0, TERMS, [b"0"]]), type=r.Delivery)
    assert delivery.headers == []
