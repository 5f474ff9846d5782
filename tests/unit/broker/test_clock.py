from __future__ import annotations

import time

import pytest

from service.broker.clock import ManagerClock


def test_the_clock_starts_at_the_time_of_day():
    assert ManagerClock().now() == pytest.approx(time.time(), abs=1.0)


def test_a_clock_behind_the_journal_goes_on_from_there():
    later = time.time() + 1000

    assert later <= ManagerClock(later).now() < later + 1


def test_the_clock_does_not_follow_the_time_of_day(monkeypatch):
    clock = ManagerClock()
    before = clock.now()
    monkeypatch.setattr(time, "time", lambda: 0.0)

    assert clock.now() >= before
