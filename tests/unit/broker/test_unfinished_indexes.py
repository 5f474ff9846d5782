"""Requests for jobs while an index of very many lanes is made: each gets its job, if it waits or not."""

from __future__ import annotations

import math

import pytest

from svc.broker.host import QueueHost
from svc.broker.journal import MemoryJournal
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.job import ITEM, ITEM_CODEC, RESULTS_QUEUE, NewChunk, Terms
from svc.domain.members import Member
from svc.wire import PROTOCOL_VERSION
from tests.support.hosts import ask

#: Lanes of one step in these tests, and all of them.
AT_ONCE = 20
LANES = 10 * AT_ONCE + 7


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("svc.domain.scheduling.indexes.INDEXED_AT_ONCE", AT_ONCE)
    monkeypatch.setattr("svc.domain.scheduling.lanes.INDEXED_AT_ONCE", AT_ONCE)


@pytest.fixture
def host() -> QueueHost:
    host = QueueHost(MemoryJournal())
    chunks = [NewChunk(number, Terms("m:f", priority=number), [b""]) for number in range(LANES)]
    ask(host, Member(), c.Submit("o", chunks))
    return host


def turns(host: QueueHost, answers: list[list[r.Reply]]) -> int:
    """Serve turns until there is an answer, as many as a second of an idle manager has."""
    for number in range(500):
        if answers:
            return number
        assert host.seconds_to_next() <= 0.01
        host.turn()
    pytest.fail("no answer comes")


def priorities(answers: list[list[r.Reply]]) -> list[int]:
    ((grant,),) = answers
    assert isinstance(grant, r.Grant)
    return [each.terms.priority for each in grant.deliveries]


@pytest.mark.parametrize("wait", [0.0, 60.0])
def test_a_request_for_jobs_gets_the_first_one(host: QueueHost, wait: float):
    answers = ask(host, Member("plain"), c.Lease(1, wait))
    assert turns(host, answers) >= LANES // AT_ONCE - 1
    assert priorities(answers) == [LANES - 1]


def test_a_consumer_that_does_not_wait_gets_the_first_one(host: QueueHost):
    member = Member()
    ask(host, member, c.Hello(PROTOCOL_VERSION, "consumer", "c-1", "w", tasks=["m:f"]))
    answers = ask(host, member, c.Lease(1))
    turns(host, answers)
    assert priorities(answers) == [LANES - 1]


@pytest.mark.parametrize("wait", [0.0, math.inf])
def test_a_client_that_takes_from_results_gets_what_is_there(host: QueueHost, wait: float):
    item = NewChunk(0, Terms(ITEM, queue=RESULTS_QUEUE, codec=ITEM_CODEC), [b"\x80\x02N."])
    ask(host, Member(inside=True), c.Submit("p", [item]))
    answers = ask(host, Member("plain", inside=True), c.Take(wait))
    turns(host, answers)
    ((taken,),) = answers
    assert isinstance(taken, r.Outcomes)
    assert [each.result for each in taken.outcomes] == [b"\x80\x02N."]


def test_an_index_for_which_there_is_nothing_is_made_once(host: QueueHost):
    member = Member()
    ask(host, member, c.Hello(PROTOCOL_VERSION, "consumer", "c-1", "w", tasks=["m:g"]))
    answers = ask(host, member, c.Lease(1, 60.0))
    for _ in range(LANES):
        host.turn()
    assert not host.state.lanes.unfinished
    assert not answers
    ask(host, Member(), c.Submit("q", [NewChunk(0, Terms("m:g", priority=-5), [b""])]))
    turns(host, answers)
    assert priorities(answers) == [-5]
