from __future__ import annotations

import time

import pytest

from svc.broker.clock import CLOCK_JUMP_MAX, ManagerClock

DAY = 24 * 3600.0


def test_the_clock_starts_at_the_time_of_day():
    assert ManagerClock().now() == pytest.approx(time.time(), abs=30.0)


@pytest.mark.parametrize("jump", [365 * DAY, 2 * DAY, DAY + 60, -365 * DAY, -2 * DAY, -DAY - 60])
@pytest.mark.parametrize("told_by", ["expected", "at_least"])
def test_a_clock_that_would_start_over_a_day_away_goes_on_from_the_journal(jump: float, told_by: str):
    journal = time.time() - jump
    clock = ManagerClock(**{told_by: journal})
    assert clock.held
    assert clock.now() == pytest.approx(journal, abs=30.0)
    assert clock.behind() == pytest.approx(jump, abs=30.0)


@pytest.mark.parametrize("jump", [0, 60, CLOCK_JUMP_MAX - 60])
def test_a_smaller_jump_is_followed(jump: float):
    clock = ManagerClock(time.time() - jump)
    assert not clock.held
    assert clock.now() == pytest.approx(time.time(), abs=30.0)


def test_the_bound_is_a_setting_and_a_new_journal_has_no_time():
    assert not ManagerClock(time.time() - 300 * DAY, jump_max=365 * DAY).held
    assert ManagerClock(time.time() - 60, jump_max=30).held
    assert not ManagerClock().held


def test_the_later_of_the_two_times_counts():
    assert not ManagerClock(time.time() - 3 * DAY, expected=time.time() - 60).held
    assert ManagerClock(time.time() + 3 * DAY, expected=time.time()).held


@pytest.mark.parametrize("corrected", [-3600.0, 0.0, 3600.0])
def test_a_held_clock_follows_once_the_host_s_time_is_near_again(monkeypatch, corrected: float):
    right = time.time()
    clock = ManagerClock(right - 365 * DAY)
    assert clock.settle() == 0.0
    monkeypatch.setattr(time, "time", lambda: right - 365 * DAY + corrected)
    before = clock.now()
    assert clock.settle() == pytest.approx(max(0.0, corrected), abs=30.0)
    assert not clock.held
    assert clock.now() >= before


def test_a_clock_behind_the_journal_goes_on_from_there():
    later = time.time() + 1000

    assert later <= ManagerClock(later).now() < later + 30


def test_the_clock_does_not_follow_the_time_of_day(monkeypatch):
    clock = ManagerClock()
    before = clock.now()
    monkeypatch.setattr(time, "time", lambda: 0.0)

    assert clock.now() >= before
