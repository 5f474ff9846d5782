from __future__ import annotations

import pytest

from svc.broker.commit import RECENT_EVENT_BYTES, RECENT_EVENTS, RecentEvents
from svc.domain import events as e
from svc.domain.job import Terms


def submitted(size: int) -> e.Submitted:
    return e.Submitted(0.0, "o", 0, Terms("m:f"), [bytes(size)])


def succeeded(size: int) -> e.Succeeded:
    return e.Succeeded(0.0, [e.Range("o", 0, 1, [bytes(size)], [0.0])])


def test_outcomes_are_kept_as_they_are_committed_and_arguments_as_they_are_read_again():
    recent, outcome, arguments = RecentEvents(), succeeded(1), submitted(1)
    recent.committed(1, outcome)
    recent.committed(2, arguments)
    recent.read(3, arguments)
    recent.read(4, outcome)

    assert [recent.get(number) for number in (1, 2, 3, 4)] == [outcome, None, arguments, None]


def test_arguments_read_again_are_kept_only_up_to_a_bound():
    """A backlog of large arguments must not come back into memory by way of this."""
    recent = RecentEvents(most_bytes=1000)
    for number in range(20):
        recent.read(number, submitted(400))

    assert [number for number in range(20) if recent.get(number)] == [18, 19]


def test_one_that_is_larger_than_all_may_be_is_kept_alone():
    recent = RecentEvents(most_bytes=1000)
    for number in range(3):
        recent.read(number, submitted(4000))

    assert (len(recent), recent.get(2) is not None) == (1, True)


def test_large_results_are_not_kept_at_all():
    recent = RecentEvents()
    recent.committed(1, succeeded(RECENT_EVENT_BYTES))

    assert recent.get(1) is None


@pytest.mark.parametrize("size", [0, 10])
def test_no_more_than_a_number_are_kept(size):
    recent = RecentEvents()
    for number in range(RECENT_EVENTS + 5):
        recent.committed(number, succeeded(size))

    assert len(recent) == RECENT_EVENTS
    assert recent.get(4) is None
