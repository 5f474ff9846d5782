"""Since when a standby has seen the same leader serve."""

from __future__ import annotations

from svc.app.leader_watch import LISTED_SECONDS, LeaderWatch
from svc.server.journal.jetstream.leadership import Holding

OLD, NEW = Holding("old", ("a:7077",), term=3), Holding("new", ("b:7077",), term=4)
TAKES_OVER = Holding("new", ("b:7077",))


def watch_of(*seen: tuple[float, Holding | None]) -> LeaderWatch:
    watch = LeaderWatch()
    for now, leader in seen:
        watch.saw(leader, now)
    return watch


def test_the_workers_are_known_once_a_leader_has_served_long_enough():
    watch = watch_of((10, OLD), (50, OLD))
    assert not watch.listed(10 + LISTED_SECONDS - 0.1)
    assert watch.listed(10 + LISTED_SECONDS)


def test_without_a_leader_they_are_not_known():
    assert not watch_of().listed(LISTED_SECONDS)
    assert not watch_of((0, OLD), (900, None)).listed(900 + LISTED_SECONDS)


def test_a_takeover_does_not_count_as_service_however_long_it_lasts():
    watch = watch_of((0, TAKES_OVER), (1000, TAKES_OVER), (1001, NEW))
    assert not watch.listed(1000 + LISTED_SECONDS)
    assert watch.listed(1001 + LISTED_SECONDS)


def test_each_leader_is_waited_for_anew():
    watch = watch_of((0, OLD), (1000, NEW))
    assert not watch.listed(1000 + LISTED_SECONDS - 0.1)
