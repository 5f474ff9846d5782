"""The places of consumers that are recycled, whatever ends at which moment."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import structlog

from svc.worker.consumer_exit import ConsumerExit
from svc.worker.recycling import Recycling
from svc.worker.slot import Phase, SlotState
from tests.support.workers import options


class Child:
    """A consumer whose phase a test sets."""

    def __init__(self, name: str, born: float = 0.0) -> None:
        self.name, self.born, self.loaded, self.stopped, self.phase = name, born, True, False, Phase.IDLE
        self.slot = self

    def look(self) -> SlotState:
        return SlotState(self.phase)

    def stop(self) -> None:
        self.stopped = True


class Pool:
    """A pool of such consumers."""

    def __init__(self, consumers: int) -> None:
        self.children = [Child(f"c{number}") for number in range(consumers)]
        self.restarts: Counter[str] = Counter()
        self.drained = 0
        self.has_room = True

    def start_another(self, now: float) -> Child | None:
        if not self.has_room:
            return None
        new = Child(f"c{len(self.children)}", now)
        new.phase = Phase.STARTING
        self.children.append(new)
        return new

    def end(self, recycling: Recycling, child: Child, phase: Phase, code: int = 0) -> bool:
        self.children.remove(child)
        self.drained += phase is Phase.DRAINED
        return recycling.settle(child, ConsumerExit(child.name, code, SlotState(phase), None, 5.0))  # type: ignore[arg-type]

    def ready(self) -> int:
        return sum(child.phase is not Phase.STARTING and not child.stopped for child in self.children)


def recycling(pool: Pool, **limits: Any) -> Recycling:
    served = options(len(pool.children), **limits)
    return Recycling(served, pool, structlog.get_logger(), lambda: 0.0)  # type: ignore[arg-type]


@pytest.fixture
def changing() -> tuple[Pool, Recycling, Child, Child]:
    """A pool of two consumers, the first of which waits for its successor."""
    pool = Pool(2)
    change = recycling(pool)
    old = pool.children[0]
    change.note(old, "jobs")  # type: ignore[arg-type]
    change.turn(1.0)
    return pool, change, old, pool.children[-1]


@pytest.mark.parametrize(("consumers", "at_once"), [(1, 1), (8, 1), (16, 2), (64, 8)])
def test_few_are_replaced_at_a_time_and_as_many_as_the_places_are_ready(consumers: int, at_once: int):
    pool = Pool(consumers)
    change = recycling(pool, recycle_age=10.0)
    old = list(pool.children)
    for turn in range(3 * consumers):
        change.turn(10.0 + turn)
        assert pool.ready() >= consumers
        starting = [child for child in pool.children if child.phase is Phase.STARTING]
        assert len(starting) <= at_once
        for child in starting:
            child.phase = Phase.IDLE
            child.born = 1000.0
        for child in [child for child in pool.children if child.stopped]:
            assert pool.end(change, child, Phase.STOPPING)
        if not set(old) & set(pool.children):
            break
    assert not set(old) & set(pool.children)
    assert pool.restarts["recycled"] >= consumers


def test_a_place_has_one_consumer_if_the_old_one_ends_first(changing):
    pool, change, old, new = changing
    assert pool.end(change, old, Phase.IDLE, code=-9)
    new.phase = Phase.IDLE
    change.turn(2.0)
    assert not any(child.stopped for child in pool.children)
    assert pool.restarts == {"lost": 1}


def test_a_successor_that_ends_at_once_is_tried_again_after_a_pause(changing):
    pool, change, old, new = changing
    assert pool.end(change, new, Phase.STARTING, code=78)
    change.turn(5.0)
    assert len(pool.children) == 2
    again = change.next_look(5.0)
    assert again is not None
    assert again > 5.0
    change.turn(again)
    assert len(pool.children) == 3
    assert not old.stopped


def test_a_pill_for_a_worn_consumer_ends_its_place(changing):
    pool, change, old, new = changing
    assert pool.end(change, old, Phase.PILLED)
    assert new.stopped
    assert pool.end(change, new, Phase.STOPPING)
    assert len(pool.children) == 1


def test_a_pill_for_a_successor_ends_its_place(changing):
    pool, change, old, new = changing
    assert pool.end(change, new, Phase.PILLED)
    assert old.stopped


@pytest.mark.parametrize("first", ["old", "new"])
def test_a_drain_of_both_consumers_of_a_place_counts_it_once(first: str, changing):
    pool, change, old, new = changing
    if first == "old":
        assert pool.end(change, old, Phase.DRAINED)
        assert not pool.end(change, new, Phase.DRAINED)
    else:
        assert pool.end(change, new, Phase.DRAINED)
        assert not pool.end(change, old, Phase.DRAINED)
    assert pool.drained == 1


def test_no_room_for_a_successor_leaves_the_worn_consumer_at_work():
    pool = Pool(1)
    pool.has_room = False
    change = recycling(pool)
    (old,) = pool.children
    change.note(old, "rss")  # type: ignore[arg-type]
    change.turn(1.0)
    assert not old.stopped
    pool.has_room = True
    later = change.next_look(1.0)
    assert later is not None
    change.turn(later)
    assert len(pool.children) == 2
