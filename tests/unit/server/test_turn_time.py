"""A turn ends in time although there is too much work of every kind, and no kind is left out for long."""

from __future__ import annotations

import select
import time
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from svc.domain.observer import Observer
from svc.server.loop import TURN_SECONDS, Loop, Turns

#: The seconds that the largest answer to one request takes: the longest step of any kind of work.
STEP_SECONDS = 0.012
KINDS = ("unfinished", "event", "waiting", "owner", "paused")


class Busy:
    """A loop with work of every kind, of which each step takes long on a clock of the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.done: Counter[str] = Counter()
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)
        resumed = SimpleNamespace(
            fd=5, paused=False, closed=False, work=None, left_over=lambda: iter([memoryview(b"")])
        )
        connections = SimpleNamespace(
            paused={5: resumed},
            limits=SimpleNamespace(connections={}),
            keep_time=self._nothing,
            watch=self._nothing,
        )
        host = SimpleNamespace(
            observer=Observer(),
            has_to_sync=False,
            behind=False,
            serve=lambda: self.step("waiting"),
            go_on=lambda until: self.step("owner"),
            end_turn=list,
            maintain_journal=lambda idle: False,
        )
        self.turns = Turns()
        self.loop = Loop(
            host,  # type: ignore[arg-type]  # it has what a turn needs
            connections,  # type: ignore[arg-type]  # likewise
            self.turns,
            SimpleNamespace(poll=lambda timeout: [(7, select.EPOLLIN)]),  # type: ignore[arg-type]  # likewise
            handle=lambda connection, message: self._handle(connection),
            readers={7: lambda: self.step("event")},
            keep_house=self._nothing,
        )
        for fd in range(20, 40):
            unfinished = SimpleNamespace(fd=fd, closed=False, work=None)
            self.turns.defer(unfinished, self._go_on)  # type: ignore[arg-type]  # likewise

    def step(self, kind: str) -> None:
        """Do one step of a kind of work."""
        self.now += STEP_SECONDS
        self.done[kind] += 1

    def turn(self) -> float:
        """Serve one turn; return the seconds that it took."""
        began = self.now
        self.loop.turn()
        return self.now - began

    def _nothing(self, *arguments: object) -> None:
        """Do nothing."""

    def _go_on(self, until: float) -> bool:
        self.step("unfinished")
        return False

    def _handle(self, connection: Any) -> None:
        self.step("paused")
        connection.work = self._nothing  # so that the loop does not put it off


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> Busy:
    return Busy(monkeypatch)


def test_a_turn_takes_its_time_and_one_step_at_most(busy):
    assert max(busy.turn() for _ in range(100)) < TURN_SECONDS + STEP_SECONDS


def test_every_kind_of_work_goes_on_within_a_few_turns(busy):
    for _ in range(50):
        busy.done.clear()
        for _ in KINDS:
            busy.turn()
        assert set(busy.done) == set(KINDS)


def test_the_usual_order_comes_back_when_there_is_time(busy, monkeypatch):
    busy.turn()
    assert busy.loop._order is not busy.loop._kinds
    monkeypatch.setattr(busy, "step", busy.done.update)
    busy.turn()
    assert busy.loop._order is busy.loop._kinds
