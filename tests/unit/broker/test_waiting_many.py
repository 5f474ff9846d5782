"""Very many requests that wait for one thing are answered over several turns, none of which is long."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from svc.broker.host import QueueHost
from svc.broker.journal import MemoryJournal
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.job import NewChunk, Terms
from svc.domain.limits import Limits
from svc.domain.members import Member
from tests.support.clock import FakeClock
from tests.support.effort import calls_of

FOREVER = 1e9
FEW, MANY = 2_000, 20_000


class WaitingHost:
    """A host with one leased job, and requests that wait there."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.host = QueueHost(MemoryJournal(), limits=Limits(parked_bytes=1 << 30), clock=self.clock)
        self.worker, self.asked, self.answered = Member(), 0, 0
        self._call(c.Submit("o", [NewChunk(0, Terms("m:f"), [b""])]))
        self._call(c.Hello(1, "consumer", "w-1", "w", tasks=["m:f"], queues=["default"]), self.worker)
        told: list[Any] = []
        self.host.call([c.Lease(1)], self.worker, told.append)
        self.host.turn()
        ((grant,),) = told
        self.token = grant.deliveries[0].token

    def _call(self, command: c.Command, member: Member | None = None) -> None:
        self.host.call([command], member or Member(), lambda replies: None)
        self.host.turn()

    def add(self, command: c.Command, count: int = 1) -> WaitingHost:
        for _ in range(count):
            self.host.call([command], Member(), self._note)
        self.host.turn()
        self.asked += count
        assert self.answered == 0
        return self

    def _note(self, replies: list[r.Reply]) -> None:
        self.answered += 1

    def longest_turn(self, event: Callable[[], object]) -> int:
        """Return the most function calls of a turn, from *event* until all requests are answered."""
        efforts = [calls_of(event)]
        while self.answered < self.asked:
            assert self.host.seconds_to_next() == 0.0
            efforts.append(calls_of(self.host.turn))
        return max(efforts)

    def end_job(self) -> None:
        self._call(c.Ack(self.token, 0, [b"r"], [0.0]), self.worker)

    def let_time_pass(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.host.turn()


@pytest.fixture
def waiting() -> WaitingHost:
    return WaitingHost()


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(c.Await(["o-0"], FOREVER), id="the job"),
        pytest.param(c.Feed("o", wait=FOREVER), id="its origin"),
        pytest.param(c.Feed("", wait=FOREVER), id="any job"),
        pytest.param(c.ReadStream("o-0", wait=FOREVER), id="its partial results"),
        pytest.param(c.Join("default", FOREVER), id="its queue"),
    ],
)
def test_the_end_of_a_job_makes_no_longer_turn_if_more_wait_for(command):
    few, many = (WaitingHost().add(command, count) for count in (FEW, MANY))

    assert many.longest_turn(many.end_job) < 1.1 * few.longest_turn(few.end_job)


@pytest.mark.parametrize(
    "command", [c.Await(["o-0"], 5.0), c.Feed("o", wait=5.0), c.Take(5.0), c.Join("default", 5.0)]
)
def test_no_longer_turn_is_made_if_the_time_of_more_is_up_at_once(command, monkeypatch):
    monkeypatch.setattr("svc.broker.waiting.EXPIRED_MAX", FEW // 2)
    few, many = (WaitingHost().add(command, count) for count in (FEW, MANY))

    efforts = [each.longest_turn(partial(each.let_time_pass, 6.0)) for each in (few, many)]

    assert efforts[1] < 1.1 * efforts[0]


def test_a_look_for_those_whose_time_is_up_costs_nothing_for_the_others(waiting):
    waiting.add(c.Await(["o-0"], FOREVER), MANY)
    waiting.add(c.Await(["o-0"], 5.0))

    assert calls_of(partial(waiting.let_time_pass, 1.0)) < 100
    assert calls_of(partial(waiting.let_time_pass, 6.0)) < 200
    assert waiting.answered == 1


@pytest.mark.parametrize("wait", [0.5, 299.0, 301.0, 86_400.0])
def test_a_request_is_answered_when_its_time_is_up_and_not_before(waiting, wait):
    """Deadlines far away are looked at on the way."""
    waiting.add(c.Await(["o-0"], wait))
    for _ in range(100):
        waiting.let_time_pass((wait - 0.2) / 100)
    assert waiting.answered == 0

    waiting.let_time_pass(0.3)
    assert waiting.answered == 1


def test_the_ticks_of_deadlines_are_bounded_however_far_apart_these_are(waiting):
    for number in range(40_000):
        waiting.host.call([c.Lease(1, wait=number * 1.5, running=True)], waiting.worker, waiting._note)

    assert len(waiting.host._waiters.all) == 1
    assert len(waiting.host._waiters.expiries._by_tick) <= 15_001
