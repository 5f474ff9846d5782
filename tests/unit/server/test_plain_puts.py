"""Puts of plain clients into a full queue: they wait as those of the standard library do."""

from __future__ import annotations

import queue
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from svc.broker.host import QueueHost
from svc.broker.journal import MemoryJournal
from svc.broker.waiting_puts import LOOKS_MAX
from svc.domain import commands as c
from svc.domain.job import NewChunk, Terms
from svc.domain.lifecycle import JobState
from svc.domain.limits import Limits
from svc.domain.members import Member
from svc.domain.refusals import DISK, MEMORY
from svc.server.plain import SharedObjects
from tests.support.clock import FakeClock
from tests.support.inside import waiting_puts
from tests.support.memory_journals import reopened
from tests.support.plain_caller import Caller
from tests.support.state_checks import check_state

#: Places in the queue.
ROOM = 2
KEYED = {"task": "m:f", "queue": "q", "key": "once"}


def open_host(journal: MemoryJournal | None = None, **limits: Any) -> QueueHost:
    known = replace(Limits(max_queue_jobs=ROOM), **limits)
    return QueueHost(journal or MemoryJournal(), clock=FakeClock(), limits=known)


@pytest.fixture
def host() -> QueueHost:
    return open_host()


@pytest.fixture
def client(host: QueueHost) -> Callable[[], Caller]:
    face = SharedObjects(host)
    return lambda: Caller(host, face)


def fill(caller: Caller, item: object = "first") -> None:
    for _ in range(ROOM):
        caller("tasks", "put", item)


def settle(host: QueueHost) -> None:
    """Run turns for as long as the host would not sleep."""
    while not host.seconds_to_next():
        host.turn()


def accepted(host: QueueHost) -> int:
    return sum(counts.submitted for counts in host.state.ledger.counts.values())


def test_a_put_into_a_full_queue_waits_until_somebody_takes_a_job(host, client):
    taker = client()
    fill(taker)
    put = client().begin("tasks", "put", "late")
    settle(host)
    assert put == []

    assert taker("tasks", "get") == "first"

    assert put == [None]
    assert [taker("tasks", "get") for _ in range(ROOM)] == ["first", "late"]


def test_full_says_that_a_put_would_wait_and_jobs_that_a_consumer_has_do_not_count(host, client):
    taker = client()
    assert taker("tasks", "full") is False
    fill(taker)
    assert taker("tasks", "full") is True
    taker("tasks", "get")
    assert taker("tasks", "full") is False
    taker("tasks", "put", "late")

    assert taker("tasks", "full") is True
    assert host.state.ledger.counts["default"].unfinished == ROOM + 1


@pytest.mark.parametrize("arguments", [(True, 2.0), (True, 2)])
def test_a_put_is_full_at_its_timeout_and_not_before(host, client, arguments):
    taker = client()
    fill(taker)
    put = client().begin("tasks", "put", "late", *arguments)
    host.clock.advance(1.9)
    host.turn()
    assert put == []

    host.clock.advance(0.2)
    host.turn()

    assert isinstance(put[0], queue.Full)
    taker("tasks", "get")
    taker("tasks", "get")
    assert taker("tasks", "empty") is True
    assert waiting_puts(host) == (0, 0)


@pytest.mark.parametrize("timeout", [-1, "soon", float("nan"), 1 << 1100])
def test_a_timeout_that_is_none_is_a_value_error_and_puts_nothing(client, timeout):
    caller = client()
    with pytest.raises(ValueError, match="timeout"):
        caller("tasks", "put", 1, True, timeout)

    assert caller("tasks", "empty") is True


def test_puts_that_wait_are_accepted_in_the_order_in_which_they_came_under_the_next_numbers(host, client):
    taker = client()
    fill(taker)
    puts = [client().begin("tasks", "put", number) for number in range(5)]
    with pytest.raises(queue.Full):
        client()("tasks", "put_nowait", "refused")

    found = [taker("tasks", "get") for _ in range(ROOM + 5)]

    assert found == [*["first"] * ROOM, *range(5)]
    assert puts == [[None]] * 5
    (chunk,) = host.state.ledger.chunks.values()
    assert (chunk.first, chunk.count) == (0, ROOM + 5)


def test_a_put_with_several_places_at_once_lets_as_many_in(host, client):
    taker = client()
    fill(taker, ("m:f", ()))
    puts = [client().begin("tasks", "put", number) for number in range(3)]
    ids = [chunk.id(index) for chunk in host.state.ledger.chunks.values() for index in range(chunk.count)]

    host.call([c.Cancel(ids)], Member(), lambda replies: None)
    host.turn()

    assert puts == [[None], [None], []]
    check_state(host.state)


@pytest.mark.parametrize("refusal", [DISK, MEMORY])
def test_a_put_waits_for_a_shortage_to_end(host, client, refusal):
    caller = client()
    host.refuse(refusal, on=True)
    assert caller("tasks", "full") is True
    put = client().begin("tasks", "put", 1)
    settle(host)
    assert put == []

    host.refuse(refusal, on=False)
    settle(host)

    assert put == [None]


def test_a_put_waits_for_a_drain_that_refuses_jobs(host, client):
    host.call([c.Drain(refuse=True)], Member(), lambda replies: None)
    put = client().begin("tasks", "put", 1)
    assert (put, client()("tasks", "full")) == ([], True)

    host.call([c.Resume()], Member(), lambda replies: None)
    host.turn()

    assert put == [None]


def test_a_put_waits_for_room_in_all_queues_together(client):
    host = open_host(max_jobs=1)
    face = SharedObjects(host)
    taker, other = Caller(host, face), Caller(host, face)
    taker("tasks", "put", 1)
    assert taker("tasks", "full") is True
    put = other.begin("results", "put", 2)
    taker("tasks", "get")
    assert put == []

    taker("tasks", "task_done")
    settle(host)

    assert put == [None]


def test_results_are_a_queue_with_the_same_bound(host, client):
    reader = client()
    for number in range(ROOM):
        reader("results", "put", number)
    assert reader("results", "full") is True
    put = client().begin("results", "put", "late")
    assert put == []

    assert reader("results", "get") == 0

    assert put == [None]
    assert [reader("results", "get") for _ in range(2)] == [1, "late"]


def test_a_client_that_is_gone_leaves_no_put_behind(host, client):
    taker, gone = client(), client()
    fill(taker)
    put = gone.begin("tasks", "put", "x" * 1000)
    assert waiting_puts(host)[0] == 1
    assert waiting_puts(host)[1] > 1000

    host.disconnected(gone.member)

    assert waiting_puts(host) == (0, 0)
    taker("tasks", "get")
    taker("tasks", "get")
    settle(host)
    assert (put, accepted(host)) == ([], ROOM)


def test_a_put_that_is_repeated_while_it_waits_is_one_job(host, client):
    taker = client()
    for _ in range(ROOM):
        taker("tasks", "put", {"task": "m:f", "queue": "q"})
    first, repeated = (client().begin("tasks", "put", KEYED) for _ in range(2))
    assert (first, repeated) == ([], [])

    host.call([c.Cancel(["put1-0", "put1-1"])], Member(), lambda replies: None)
    settle(host)

    assert (first, repeated) == ([None], [None])
    assert host.state.ledger.counts["q"][JobState.READY] == 1
    assert len(host.state.ledger.keys) == 1


def test_a_restart_knows_no_put_that_waited_and_takes_its_repetition_once(client):
    journal = MemoryJournal()
    host = open_host(journal)
    caller = Caller(host, SharedObjects(host))
    for _ in range(ROOM):
        caller("tasks", "put", {"task": "m:f", "queue": "q"})
    assert caller.begin("tasks", "put", KEYED) == []

    again = open_host(reopened(journal))
    assert accepted(again) == ROOM
    other = Caller(again, SharedObjects(again))
    again.call([c.Cancel(["put1-0"])], Member(), lambda replies: None)
    for _ in range(2):
        other("tasks", "put", KEYED)

    assert accepted(again) == ROOM + 1
    assert again.state.ledger.find("put2-0") is not None


def test_more_bytes_than_may_wait_are_full_at_once(client):
    host = open_host(parked_bytes=1000)
    face = SharedObjects(host)
    taker = Caller(host, face)
    fill(taker)
    waits = Caller(host, face).begin("tasks", "put", "x" * 700)
    refused = Caller(host, face).begin("tasks", "put", "x" * 700)

    assert waits == []
    assert isinstance(refused[0], queue.Full)
    assert waiting_puts(host)[0] == 1
    taker("tasks", "get")
    assert waits == [None]


def test_the_manager_sleeps_while_puts_wait_and_nothing_happens(host, client):
    fill(client())
    put = client().begin("tasks", "put", 1)
    settle(host)

    assert host.seconds_to_next() > 0
    assert put == []


def test_puts_into_very_many_queues_are_looked_at_over_several_turns():
    queues = 2 * LOOKS_MAX
    host = open_host(max_jobs=1)
    face = SharedObjects(host)
    Caller(host, face)("tasks", "put", {"task": "m:f", "queue": "first"})
    caller = Caller(host, face)
    puts = [caller.begin("tasks", "put", {"task": "m:f", "queue": f"q{number}"}) for number in range(queues)]
    assert waiting_puts(host)[0] == queues
    settle(host)
    last = "put1-0"
    for count in range(1, 4):
        host.call([c.Cancel([last])], Member(), lambda replies: None)
        settle(host)
        assert puts.count([None]) == count
        last = f"put1-{count}"


def test_a_put_that_came_after_others_may_go_first_but_only_if_there_is_room(host, client):
    """As with the stdlib's queue: it hands a free place to whoever comes first."""
    taker = client()
    fill(taker)
    waits = client().begin("tasks", "put", "waits")
    done: list[object] = []
    taker.face.carry_out(taker.face.method("tasks", "get"), taker.member, (), {}, done.append)
    quick = client()
    quick.face.carry_out(quick.face.method("tasks", "put"), quick.member, ("quick",), {}, done.append)
    host.turn()

    assert done == ["first", None]
    assert waits == []
    assert taker("tasks", "get") == "first"
    assert waits == [None]


def test_a_job_that_svc_submits_counts_like_one_that_was_put(host, client):
    replies: list[object] = []
    host.call(
        [c.Submit("o", [NewChunk(0, Terms("m:f"), [b"\x92\x90\x80"] * ROOM)])], Member(), replies.extend
    )
    host.turn()
    put = client().begin("tasks", "put", 1)
    assert put == []

    client()("tasks", "get")

    assert put == [None]
