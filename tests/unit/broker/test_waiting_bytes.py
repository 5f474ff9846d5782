"""What requests keep in memory while they wait: the last command and the replies so far, within a bound."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from svc.broker.host import QueueHost
from svc.broker.journal import MemoryJournal
from svc.broker.parked import WAITING_BYTES
from svc.domain import commands as c
from svc.domain.job import NewChunk, Terms
from svc.domain.limits import Limits
from svc.domain.members import Member
from tests.support.clock import FakeClock

FOREVER = 1e9
BOUND = 100_000
IDS = [f"o-{number}" for number in range(200)]
WAITS: dict[str, c.Command] = {
    "await": c.Await(IDS, FOREVER),
    "feed": c.Feed("o", wait=FOREVER),
    "stream": c.ReadStream("o-0", wait=FOREVER),
    "join": c.Join("default", FOREVER),
    "take": c.Take(FOREVER),
}


@pytest.fixture
def host() -> QueueHost:
    host = QueueHost(MemoryJournal(), limits=Limits(parked_bytes=BOUND), clock=FakeClock())
    ask(host, c.Submit("o", [NewChunk(0, Terms("m:f"), [b""] * len(IDS))]))
    ask(host, c.Submit("big", [NewChunk(0, Terms("m:f", "big"), [b""])]))
    return host


def ask(host: QueueHost, *commands: c.Command, member: Member | None = None) -> list[Any]:
    """Return the deliveries of replies by the end of the turn after that."""
    told: list[Any] = []
    host.call(commands, member or Member(), told.append)
    host.turn()
    host.turn()
    return told


@pytest.mark.parametrize("what", WAITS)
def test_a_flood_of_requests_that_wait_is_answered_at_once_beyond_a_bound(host, what):
    """20 connections with 64 awaits of 10,000 jobs each took 1.4 GB."""
    answered = sum(len(ask(host, WAITS[what])) for _ in range(BOUND // WAITING_BYTES + 10))
    waiting = host._waiters
    assert answered >= 10
    assert waiting.all
    assert WAITING_BYTES < waiting.bytes <= BOUND


def test_the_bound_is_for_those_who_wait_and_free_again_when_they_have_gone(host):
    member = Member()
    while not ask(host, WAITS["await"], member=member):
        pass
    host.disconnected(member)
    assert host._waiters.bytes == 0
    assert not ask(host, WAITS["await"])


def test_consumers_that_wait_for_jobs_are_not_held_to_it(host):
    while not ask(host, WAITS["feed"]):
        pass
    consumer = Member()
    ask(host, c.Hello(1, "consumer", "w-1", "w", tasks=["m:other"]), member=consumer)
    assert not ask(host, c.Lease(1, FOREVER), member=consumer)


def test_replies_that_wait_with_a_request_count(host):
    worker = Member()
    ask(host, c.Hello(1, "consumer", "w-1", "w", tasks=["m:f"], queues=["big"]), member=worker)
    ((grant,),) = ask(host, c.Lease(1), member=worker)
    ask(host, c.Ack(grant.deliveries[0].token, 0, [bytes(BOUND // 2)], [0.0]), member=worker)
    reads = c.Await(["big-0"])
    assert not ask(host, reads, WAITS["feed"])
    assert len(ask(host, reads, WAITS["feed"])) == 1


def test_a_request_that_waits_keeps_none_of_the_commands_that_are_done(host):
    """A job of 16 MiB stayed in memory as long as the wait behind it in its frame."""
    held = NewChunk(0, Terms("m:f"), [b"body"])
    ask(host, c.Submit("p", [held]), WAITS["feed"])
    gc.collect()
    (waiting,) = host._waiters.all.values()
    assert [type(each) for each in waiting.request.commands] == [c.Feed]
