"""A ledger whose clock was ahead for a while, set back: its records of that time lie in the past again."""

from __future__ import annotations

import pytest

from svc.domain import events as e
from svc.domain.job import Cause, ErrorInfo, Terms
from svc.domain.ledger import Ledger
from svc.domain.replay import end_replay, replay

YEAR = 365 * 24 * 3600.0
NOW, AHEAD = 1000.0, 1000.0 + YEAR
TERMS = Terms("m:f")
ERROR = ErrorInfo("E", "m")


def replayed(*events: e.AnyEvent) -> Ledger:
    ledger = Ledger()
    for sequence, event in enumerate((*events, e.ClockSet(NOW, AHEAD))):
        replay(ledger, sequence, event)
    end_replay(ledger, 0.0)
    return ledger


def submitted(
    at: float, first: int = 0, *, due: float | None = None, dues: tuple[float, ...] = ()
) -> e.AnyEvent:
    return e.Submitted(at, "o", first, TERMS, [b"x"] * (len(dues) or 1), due, dues=list(dues))


def test_the_time_goes_on_from_where_it_was_set():
    assert replayed(submitted(AHEAD)).last_at == NOW


@pytest.mark.parametrize(("at", "due", "expected"), [
    (AHEAD - 10, AHEAD + 50, NOW + 50),
    (NOW - 10, AHEAD + 50, AHEAD + 50),
    (NOW - 10, NOW + 50, NOW + 50),
])  # fmt: skip
def test_a_delay_lasts_as_long_as_it_was_asked_for(at: float, due: float, expected: float):
    chunk = replayed(submitted(at, due=due)).chunks[0]
    assert (chunk.due_of(0), chunk.at_of(0)) == (expected, at - YEAR if at > NOW else at)


def test_so_do_delays_of_jobs_that_share_a_chunk():
    chunk = replayed(submitted(AHEAD, dues=(AHEAD + 5, 0.0, AHEAD + 9))).chunks[0]
    assert [chunk.due_of(index) or 0.0 for index in range(3)] == [NOW + 5, 0.0, NOW + 9]


def test_a_chunk_that_has_grown_over_the_jump_has_each_job_s_own_time():
    ledger = replayed(submitted(NOW - 10), submitted(AHEAD - 10, 1, due=AHEAD + 50))
    (chunk,) = ledger.chunks.values()
    assert [chunk.at_of(index) for index in range(2)] == [NOW - 10, NOW - 10]
    assert [chunk.due_of(index) for index in range(2)] == [None, NOW + 50]


def test_a_retry_is_due_after_its_backoff():
    failed = e.Failed(AHEAD, "o", 0, Cause.FAILED, ERROR, AHEAD + 30, failures=1)
    chunk = replayed(submitted(NOW - 10), failed).chunks[0]
    assert chunk.records[0].due == NOW + 30


@pytest.mark.parametrize(("ended", "expected"), [(AHEAD - 5, NOW - 5), (NOW - 5, NOW - 5)])
def test_results_are_kept_from_when_the_job_ended(ended: float, expected: float):
    done = e.Succeeded(ended, [e.Range("o", 0, 0, [b"r"], [0.1])])
    ledger = replayed(submitted(NOW - 10), done)
    assert ledger.finished[0][0] == ledger.chunks[0].finished_at == expected


def test_an_origin_without_jobs_is_forgotten_a_day_after_it_had_the_last_one():
    ledger = replayed(e.Forgotten(AHEAD - 5, "o", 0, [(0, 3)]))
    assert ledger.emptied[0] == (NOW - 5, "o")
    assert ledger.origins.make("o").emptied_at == NOW - 5


def test_a_clock_that_was_set_forward_moves_nothing():
    ledger = Ledger()
    for sequence, event in enumerate((submitted(NOW, due=NOW + 50), e.ClockSet(AHEAD, NOW))):
        replay(ledger, sequence, event)
    assert (ledger.chunks[0].due_of(0), ledger.last_at) == (NOW + 50, AHEAD)
