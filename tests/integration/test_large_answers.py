"""Requests for large answers over TCP, honest and hostile ones: the manager goes on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from svc.client.client import BrokerClient
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.field_bounds import FRAME_COMMANDS_MAX
from svc.domain.job import NewChunk, Terms
from svc.domain.limits import Limits
from svc.server.journal import SqliteJournal
from tests.support.asking import record
from tests.support.manager import RunningManager, running_manager

MB = 1_000_000
#: Results of this size leave room for no other in an answer, and are near the limit of a job's default size.
LARGE = 14 * MB
#: Together more than any message may have.
COUNT = 10


@pytest.fixture
def manager() -> Iterator[RunningManager]:
    with running_manager() as manager:
        yield manager


def finish(manager: RunningManager, count: int, size: int, origin: str = "o") -> list[str]:
    """Let *count* jobs of one origin end with results of *size* bytes; return their ids."""
    with manager.broker() as broker, manager.consumer() as consumer:
        broker.submit(origin, [NewChunk(0, Terms("m:f"), [b""] * count)])
        for _ in range(count):
            (grant,) = consumer.call([c.Lease(1)])
            assert isinstance(grant, r.Grant)
            (each,) = grant.deliveries
            record(consumer, c.Ack(each.token, each.first, [bytes(size)], [0.0]))
    return [f"{origin}-{number}" for number in range(count)]


def test_results_that_are_larger_together_than_any_message_are_read_by_id(manager):
    ids = finish(manager, COUNT, LARGE)

    with BrokerClient(manager.broker) as client:
        found = client.outcomes(ids, 30.0)

    assert [each.id for each in found] == ids
    assert all(len(each.result) == LARGE for each in found)


@pytest.mark.parametrize(
    "count", [pytest.param(20, marks=pytest.mark.slow), pytest.param(160, marks=pytest.mark.long)]
)
def test_very_many_of_them_are_read_by_id_from_a_journal_in_a_file(tmp_path, count):
    # Nobody renews the leases, and a busy disk takes long for so much.
    limits = Limits(lease_seconds=600.0)
    with running_manager(SqliteJournal.open(tmp_path / "journal", "os"), limits) as manager:
        ids = finish(manager, count, LARGE)
        with BrokerClient(manager.broker) as client:
            found = client.outcomes(ids, 240.0)

    assert [each.id for each in found] == ids
    assert {len(each.result) for each in found} == {LARGE}


def test_they_are_read_as_the_jobs_end(manager):
    ids = finish(manager, COUNT, LARGE)
    seen = []

    with BrokerClient(manager.broker) as client:
        for outcome in client.follow(ids, 30.0):
            assert len(outcome.result) == LARGE
            seen.append(outcome.id)

    assert seen == ids


def test_jobs_that_have_ended_are_all_read_though_no_time_is_left_to_wait(manager):
    ids = finish(manager, 5, LARGE)

    with BrokerClient(manager.broker) as client:
        assert [each.id for each in client.follow(ids, 0.0)] == ids
        assert [each.id for each in client.outcomes(ids, 0.0)] == ids


def test_they_are_read_in_the_order_of_all_jobs(manager):
    ids = finish(manager, COUNT, LARGE)
    seen, cursor = [], 0

    with BrokerClient(manager.broker) as client:
        while (page := client.feed(cursor)).outcomes:
            seen += [each.id for each in page.outcomes]
            cursor = page.cursor

    assert seen == ids


def test_those_of_two_origins_are_read_together(manager):
    ids = [*finish(manager, 5, LARGE, "o"), *finish(manager, 5, LARGE, "p")]

    with BrokerClient(manager.broker) as client:
        assert sorted(each.id for each in client.follow(ids, 30.0)) == ids


@pytest.mark.parametrize(
    ("size", "commands"),
    [
        (MB, [c.Await(["o-0"] * 2200)]),
        (MB, [c.Feed("o")] * 1000),
        (MB, [c.Feed()] * 1000),
        (MB, [c.Await(["o-0"])] * 1000),
        (LARGE, [c.Await(["o-0", "o-1", "o-2"])] * 100),
        (MB, [c.Stats()] * FRAME_COMMANDS_MAX),
        (MB, [c.List(limit=10_000)] * FRAME_COMMANDS_MAX),
    ],
    ids=["one id 2,200 times", "feeds", "feeds of all", "waits", "large waits", "totals", "lists"],
)
def test_who_asks_for_too_much_in_one_frame_is_refused_and_others_are_served(manager, size, commands):
    ids = finish(manager, 3, size)

    with manager.broker() as greedy, BrokerClient(manager.broker) as client:
        replies = greedy.call(commands)
        assert len(replies) == len(commands)
        assert all(reply.code == "bad_request" for reply in replies if isinstance(reply, r.Refused))
        assert [each.id for each in client.outcomes(ids, 45.0)] == ids
