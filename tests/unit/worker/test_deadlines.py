"""Items by deadline, as the jobs that run beside each other are kept."""

from __future__ import annotations

import gc
import weakref

from svc.worker.deadlines import Deadlines


class Item:
    """Something that can be watched."""


def test_the_first_is_the_one_with_the_earliest_deadline_and_then_the_oldest() -> None:
    deadlines = Deadlines[str]()
    assert deadlines.first() is None
    for item, deadline in (("a", 5.0), ("b", 3.0), ("c", 3.0), ("d", float("inf"))):
        deadlines.add(item, deadline)
    assert list(deadlines) == ["a", "b", "c", "d"]
    found = []
    while (first := deadlines.first()) is not None:
        found.append(first)
        deadlines.remove(first)
    assert found == ["b", "c", "a", "d"]
    assert len(deadlines) == 0


def test_a_removed_item_is_let_go_at_once_behind_one_that_stays() -> None:
    deadlines, stays = Deadlines[Item](), Item()
    deadlines.add(stays, 1.0)
    for _ in range(1000):
        item = Item()
        deadlines.add(item, 2.0)
        deadlines.remove(item)
        gone = weakref.ref(item)
        del item
        gc.collect(0)
        assert gone() is None
    assert deadlines.first() is stays
    assert len(deadlines._heap) < 100
