"""The pauses between attempts to reach the manager."""

from __future__ import annotations

import random

import pytest

from svc.broker.backoff import Backoff
from svc.domain.retry import growing


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def tries(clock: Clock, backoff: Backoff, seconds: float) -> list[tuple[float, float]]:
    """Return the failures while a manager is away for *seconds*: the time of each, and the pause after it."""
    began, found = clock.now, []
    while clock.now - began <= seconds:
        pause = backoff.fail()
        found.append((clock.now - began, pause))
        clock.now += pause
    return found


@pytest.mark.parametrize("seed", range(20))
def test_the_first_retry_comes_within_100_ms_and_pauses_of_2_s_only_after_10_s_away(seed: int) -> None:
    clock = Clock()
    found = tries(clock, Backoff(clock, random.Random(seed).random), 60.0)
    assert found[0][1] <= 0.1
    for away, pause in found:
        assert pause <= max(0.1, away / 5)
        assert pause <= 2.0
    assert all(pause >= 1.0 for away, pause in found if away > 10)
    # A manager that is back within two seconds is noticed within a fifth of its absence.
    assert len([away for away, _ in found if away < 2]) >= 10


def test_many_that_fail_together_spread_over_the_whole_first_tenth() -> None:
    clock, chance = Clock(), random.Random(7)
    pauses = sorted(Backoff(clock, chance.random).fail() for _ in range(1000))
    for tenth in range(10):
        assert 50 < sum(tenth / 100 <= pause < (tenth + 1) / 100 for pause in pauses) < 200


def test_after_a_success_the_first_pause_is_short_again() -> None:
    clock = Clock()
    backoff = Backoff(clock, lambda: 1.0)
    tries(clock, backoff, 20.0)
    assert backoff.fail() == 2.0
    backoff.succeed()
    assert backoff.fail() == 0.1


def test_a_failure_long_after_the_last_one_is_the_first_of_another_absence() -> None:
    clock = Clock()
    backoff = Backoff(clock, lambda: 1.0)
    tries(clock, backoff, 20.0)
    clock.now += 60
    assert backoff.fail() == 0.1


@pytest.mark.parametrize("failures", [62, 63, 10**6])
def test_any_number_of_failures_of_a_job_has_a_pause(failures: int) -> None:
    assert growing(0.1, 2.0, failures, jitter=1.0) == 2.0
