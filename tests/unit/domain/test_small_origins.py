"""The memory of an origin: there may be hundreds of thousands with a job or two each."""

from __future__ import annotations

from svc.domain.job import Terms
from svc.domain.origins import DROPPED_MAX, Completions
from tests.unit.domain.test_columns import restarted
from tests.unit.domain.test_grown_chunks import Queue


def test_completions_of_very_many_forgotten_jobs_are_dropped_a_part_at_a_time():
    """The first job was dead for 30 days, while the others came and went."""
    completions = Completions()
    count = 3 * DROPPED_MAX + 1
    for number in range(count):
        completions.append(number + 1, 0, number, 1)
    left = []
    while len(completions):
        completions.drop_below(count)
        left.append(len(completions))

    assert left == [2 * DROPPED_MAX + 1, DROPPED_MAX + 1, 1, 0]


def test_an_origin_without_ended_jobs_has_no_columns_of_what_ended():
    queue = Queue()
    for number in range(3):
        queue.submit(0, 1, f"o{number}")
    origins = list(queue.state.ledger.origins)
    assert len({id(origin.completions) for origin in origins}) == 1
    queue.finish(queue.lease(1))

    assert [len(origin.completions) for origin in origins] == [1, 0, 0]


def test_chunks_with_equal_terms_share_them_live_and_after_a_restart():
    queue = Queue()
    for number in range(3):
        queue.submit(0, 1, f"o{number}", terms=Terms("m:f", retries=number // 2))

    for state in (queue.state, restarted(queue).state):
        first, second, other = (chunk.terms for chunk in state.ledger.chunks.values())
        assert first is second
        assert other == Terms("m:f", retries=1)


def test_terms_that_are_shared_are_bounded(monkeypatch):
    monkeypatch.setattr("svc.domain.ledger.TERMS_MAX", 3)
    queue = Queue()
    for number in range(10):
        queue.submit(0, 1, f"o{number}", terms=Terms(f"m:f{number}"))
        assert len(queue.state.ledger.terms) <= 3
