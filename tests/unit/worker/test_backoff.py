"""The pauses between attempts to reach the manager."""

from __future__ import annotations

import pytest

from svc.domain.retry import growing
from svc.worker.backoff import Backoff


def test_pauses_double_up_to_the_longest_with_at_most_half_of_each_left_to_chance() -> None:
    backoff = Backoff(2.0)
    for whole in (0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0):
        assert whole / 2 <= backoff.fail() <= whole


def test_after_a_success_the_first_pause_is_short_again() -> None:
    backoff = Backoff(2.0)
    for _ in range(10):
        backoff.fail()
    backoff.failures = 0
    assert backoff.fail() <= 0.1


@pytest.mark.parametrize("failures", [62, 63, 10**6])
def test_any_number_of_failures_has_a_pause(failures: int) -> None:
    assert growing(0.1, 2.0, failures, jitter=1.0) == 2.0
