"""However many jobs wait for a time, one look at the schedule does a bounded amount of work."""

from __future__ import annotations

import math

import pytest

from svc.domain import commands as c
from svc.domain import due as due_module
from svc.domain import replies as r
from svc.domain.apply import apply
from svc.domain.due import CANCELLED_MAX, RUN_COST_JOBS, SWEPT_AT_A_LOOK, SWEPT_FOR_EACH
from svc.domain.job import ErrorInfo, NewChunk, Terms
from svc.domain.lifecycle import JobState, Verb
from svc.domain.members import Member
from svc.domain.queue_state import QueueState
from tests.support.state_checks import entries
from tests.unit.domain.test_grown_chunks import Queue

TERMS = Terms("m:f")
#: Jobs that a look makes ready in these tests, and runs of them.
LOOK = 100
RUNS = LOOK // RUN_COST_JOBS
COUNT = 3 * LOOK


@pytest.fixture
def queue(monkeypatch) -> Queue:
    monkeypatch.setattr("svc.domain.queue_state.WAKE_JOBS_MAX", LOOK)
    return Queue()


def cancel(queue: Queue, ids: list[str]) -> None:
    """Cancel jobs, as many in a command as one may name."""
    for first in range(0, len(ids), c.CHANGED_JOBS_MAX):
        part = ids[first : first + c.CHANGED_JOBS_MAX]
        assert apply(queue.state, c.Cancel(part), Member(), queue.now) == r.Done(len(part))


def with_retries(queue: Queue) -> None:
    queue.submit(0, COUNT)
    for delivery in queue.lease(COUNT):
        for number in range(delivery.first, delivery.first + len(delivery.bodies)):
            nack = c.Nack(delivery.token, number, ErrorInfo("E", "no"), 1.0)
            assert apply(queue.state, nack, Member("plain"), queue.now) == r.Done(1)
    queue.commit()


def with_gaps(queue: Queue) -> None:
    """One entry, in which each second job is cancelled."""
    queue.submit(0, 2 * COUNT, delay=1.0)
    cancel(queue, [f"o-{number}" for number in range(0, 2 * COUNT, 2)])
    queue.commit()


def with_origins(queue: Queue) -> None:
    for number in range(COUNT):
        queue.submit(0, 1, f"o{number}", commit=False, delay=1.0)
    queue.commit()


def with_cancelled(queue: Queue) -> None:
    """Entries whose jobs are all cancelled, in front of some that are not."""
    for number in range(COUNT):
        queue.submit(0, 1, f"o{number}", commit=False, delay=1.0)
    with_later = [NewChunk(0, TERMS, [b"x"] * COUNT, 1.0)]
    apply(queue.state, c.Submit("z", with_later), Member(), queue.now)
    apply(queue.state, c.Cancel([f"o{number}-0" for number in range(COUNT)]), Member(), queue.now)
    queue.commit()


@pytest.mark.parametrize("fill", [with_retries, with_gaps, with_origins, with_cancelled])
def test_a_look_takes_a_bounded_number_of_entries_and_runs_and_the_next_goes_on(queue, monkeypatch, fill):
    fill(queue)
    made: list[tuple[object, ...]] = []
    monkeypatch.setattr(queue.state, "make_ready", lambda *run: made.append(run))
    looks = 0
    while queue.state.scheduled.next_at < math.inf:
        before = entries(queue.state.scheduled)
        made.clear()
        queue.state.wake_due(2.0)
        looks += 1
        assert before - entries(queue.state.scheduled) <= RUNS + 1
        assert len(made) <= RUNS + 1

    counts = queue.state.ledger.counts["default"]
    assert (counts[JobState.SCHEDULED], counts[JobState.READY]) == (0, COUNT)
    assert looks >= COUNT // LOOK


def fill_with_cancelled(queue: Queue, count: int) -> list[str]:
    """Submit *count* jobs, each in an entry of its own, and return their ids."""
    for number in range(count):
        apply(queue.state, c.Submit(f"o{number}", [NewChunk(0, TERMS, [b"x"], 1e6)]), Member(), 0.0)
    return [f"o{number}-0" for number in range(count)]


def test_cancelled_jobs_are_cleared_away_a_few_at_a_time(queue, monkeypatch):
    ids = fill_with_cancelled(queue, 4 * CANCELLED_MAX)
    looked = 0
    really = due_module._has_scheduled

    def counting(entry: due_module.Due) -> bool:
        nonlocal looked
        looked += 1
        return really(entry)

    monkeypatch.setattr(due_module, "_has_scheduled", counting)
    for job in ids[: 3 * CANCELLED_MAX]:
        looked = 0
        apply(queue.state, c.Cancel([job]), Member(), 0.0)
        assert looked <= SWEPT_FOR_EACH
    longest = entries(queue.state.scheduled)
    for _ in range(longest // SWEPT_AT_A_LOOK + 1):
        looked = 0
        queue.state.wake_due(1.0)
        assert looked <= SWEPT_AT_A_LOOK

    left = queue.state.ledger.counts["default"][JobState.SCHEDULED]
    assert left == CANCELLED_MAX
    assert left <= entries(queue.state.scheduled) <= 2 * left
    while queue.state.scheduled.next_at < math.inf:
        queue.state.wake_due(2e6)
    assert queue.state.ledger.counts["default"][JobState.READY] == left


def test_jobs_are_due_in_order_while_cancelled_ones_are_cleared_away(queue):
    origins = 2 * CANCELLED_MAX
    for number in range(origins):
        delay = float(1 + number * 7 % origins)
        apply(queue.state, c.Submit(f"o{number}", [NewChunk(0, TERMS, [b"x"], delay)]), Member(), 0.0)
    cancel(queue, [f"o{number}-0" for number in range(origins // 2 + 1)])
    woken: list[float] = []
    while (at := queue.state.scheduled.next_at) < math.inf:
        woken += _taken(queue.state, at)

    assert woken == sorted(woken)
    assert len(woken) == origins // 2 - 1


def _taken(state: QueueState, now: float) -> list[float]:
    """Make due jobs ready, and return the due time of each."""
    times = []
    for chunk, start, stop, at in state.scheduled.take_due(now, LOOK):
        state.ledger.move(chunk, start, stop, Verb.DUE)
        times.append(at)
    return times


def test_a_job_that_joins_a_chunk_whose_delayed_ones_were_cancelled_is_due_in_time(queue):
    """The entry of the chunk went with the cancelled ones, and with it the time of the new job."""
    queue.submit(0)
    queue.submit(1, delay=5.0)
    others = fill_with_cancelled(queue, 2 * CANCELLED_MAX)
    cancel(queue, ["o-1", *others])
    apply(queue.state, c.Cancel([]), Member(), 0.0)
    for _ in range(entries(queue.state.scheduled) // SWEPT_AT_A_LOOK + 1):
        queue.state.wake_due(0.0)
    queue.submit(2, delay=9.0)

    queue.state.wake_due(9.0)
    assert queue.state.ledger.counts["default"][JobState.SCHEDULED] == 0
