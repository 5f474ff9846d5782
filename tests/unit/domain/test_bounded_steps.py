"""One step of the queue does a bounded amount of work, however large its chunk or answer is."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest

from svc.domain import commands as c
from svc.domain import events as e
from svc.domain import replies as r
from svc.domain import upkeep
from svc.domain.admission import EVENT_JOBS_MAX
from svc.domain.apply import apply
from svc.domain.job import ErrorInfo, NewChunk, Terms
from svc.domain.limits import Limits
from svc.domain.members import Member
from svc.domain.queue_state import QueueState
from tests.unit.domain.test_columns import restarted
from tests.unit.domain.test_grown_chunks import Queue, bodies

TERMS = Terms("m:f")
ROWS = 40
ROW_BYTES = 256 * 1024
GRANT_BYTES = 1024 * 1024


# --- the rows that a grant reads -----------------------------------------------------------------------


def fill_rows(queue: Queue, jobs: int) -> None:
    """Submit rows of *jobs* each, whose arguments are in the journal alone."""
    for number in range(ROWS):
        new = NewChunk(0, TERMS, [b"%d" % number + bytes(ROW_BYTES // jobs)] * jobs)
        assert apply(queue.state, c.Submit(f"o{number}", [new]), Member(), queue.now) == r.Accepted([])
        queue.commit()


def retry_first_jobs(queue: Queue) -> int:
    """End all jobs but the first one of each delivery, which is tried again; return how many these are."""
    retried = 0
    while deliveries := queue.lease(256):
        for each in deliveries:
            retried += 1
            nack = c.Nack(each.token, each.first, ErrorInfo("E", "no"), 1.0)
            assert apply(queue.state, nack, Member("plain"), 0.0) == r.Done(1)
            if rest := len(each.bodies) - 1:
                ack = c.Ack(each.token, each.first + 1, [b""] * rest, [0.0] * rest)
                assert apply(queue.state, ack, Member("plain"), 0.0) == r.Done(1)
        queue.commit()
    return retried


@pytest.mark.parametrize("jobs", [1, 4, 10])
@pytest.mark.parametrize("retried", [True, False], ids=["retried", "new"])
def test_a_grant_reads_a_bounded_number_of_rows_and_the_next_ones_go_on(jobs, retried):
    queue = Queue(Limits(window_bytes=0, grant_bytes=GRANT_BYTES))
    fill_rows(queue, jobs)
    waiting = ROWS * jobs
    if retried:
        waiting = retry_first_jobs(queue)
        queue.now = 2.0
        upkeep.tick(queue.state, queue.now)
    read: list[int] = []
    really = queue.state.read

    def reading(sequence: int) -> e.AnyEvent | None:
        read.append(sequence)
        return really(sequence)

    queue.state.read = reading
    rows_most = GRANT_BYTES // ROW_BYTES
    taken = 0
    while deliveries := queue.lease(256):
        assert len(set(read)) <= rows_most
        read.clear()
        taken += len(bodies(deliveries))

    assert taken == waiting


# --- chunks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [EVENT_JOBS_MAX, EVENT_JOBS_MAX + 1, 4 * EVENT_JOBS_MAX + 7])
@pytest.mark.parametrize("delay", [0.0, 5.0])
def test_a_very_large_chunk_becomes_several_chunks_with_the_same_ids(count, delay):
    queue = Queue()
    queue.submit(3, count, delay=delay)

    events = [event for _, event in queue.journal.replay() if isinstance(event, e.Submitted)]
    assert sum(len(event.bodies) for event in events) == count
    assert all(len(event.bodies) <= EVENT_JOBS_MAX for event in events)
    assert len(events) == -(-count // EVENT_JOBS_MAX)
    queue.now = delay
    accepted = [b"o-%d" % number for number in range(3, 3 + count)]
    assert bodies_of_all(restarted(queue)) == accepted
    assert bodies_of_all(queue) == accepted


def bodies_of_all(queue: Queue) -> list[bytes]:
    """Make ready and lease all that can be."""
    while queue.state.scheduled.next_at < math.inf:
        upkeep.tick(queue.state, queue.now)
    found = []
    while deliveries := queue.lease(256):
        found += bodies(deliveries)
    return found


def test_a_very_large_chunk_that_comes_again_changes_nothing():
    queue = Queue()
    queue.submit(0, EVENT_JOBS_MAX + 1)
    before = queue.state.ledger.last_sequence
    queue.submit(0, EVENT_JOBS_MAX + 1)

    assert queue.state.ledger.last_sequence == before


@pytest.mark.parametrize(
    "limits", [Limits(max_jobs=EVENT_JOBS_MAX + 1), Limits(max_queue_jobs=EVENT_JOBS_MAX + 1)]
)
def test_a_very_large_chunk_is_refused_as_a_whole(limits):
    queue = Queue(limits)
    new = NewChunk(0, TERMS, [b"x"] * (EVENT_JOBS_MAX + 2))
    reply = apply(queue.state, c.Submit("o", [new]), Member(), 0.0)

    assert isinstance(reply, r.Accepted)
    assert [note.code for note in reply.notes] == ["queue_full"]
    assert queue.state.ledger.unfinished == 0


def test_one_look_forgets_one_part_of_a_very_large_chunk(monkeypatch):
    monkeypatch.setattr(upkeep, "FORGET_CHUNKS_MAX", 1)
    queue = Queue()
    queue.submit(0, 3 * EVENT_JOBS_MAX)
    while deliveries := queue.lease(256):
        for each in deliveries:
            count = len(each.bodies)
            ack = c.Ack(each.token, each.first, [b""] * count, [0.0] * count)
            assert apply(queue.state, ack, Member("plain"), 0.0) == r.Done(1)
    queue.commit()
    queue.now = queue.state.limits.retention_seconds
    left = []
    while queue.chunks():
        upkeep.tick(queue.state, queue.now)
        queue.commit()
        left.append(sum(count for _, _, count in queue.chunks()))

    assert left == [2 * EVENT_JOBS_MAX, EVENT_JOBS_MAX, 0]


def test_a_lane_passes_over_cancelled_jobs_in_one_step_and_not_one_by_one():
    queue = Queue()
    queue.submit(0, EVENT_JOBS_MAX)
    (chunk,) = queue.state.ledger.chunks.values()
    ids = [f"o-{number}" for number in range(EVENT_JOBS_MAX - 1)]
    for start in range(0, len(ids), 1000):
        apply(queue.state, c.Cancel(ids[start : start + 1000]), Member(), 0.0)

    looked = 0

    class Counting(bytearray):
        def __getitem__(self, index):
            nonlocal looked
            looked += 1
            return super().__getitem__(index)

    chunk._states = Counting(chunk._states)
    (delivery,) = queue.lease(1)
    assert delivery.bodies == [b"o-%d" % (EVENT_JOBS_MAX - 1)]
    assert looked < 20


# --- members, and the order of outcomes --------------------------------------------------------------------


def test_forgotten_outcomes_leave_their_order_a_part_at_a_time(monkeypatch):
    monkeypatch.setattr(upkeep, "SWEPT_OUTCOMES", 100)
    ledger = QueueState().ledger
    kept = set(range(0, 10_000, 100))
    ledger.outcome_order = list(range(10_000))
    for each in kept:
        ledger.refer(each, 1)
    state = QueueState()
    state.ledger = ledger
    lengths = [len(ledger.outcome_order)]
    while len(ledger.outcome_order) > 2 * len(kept) + 1000:
        upkeep.tick(state, 0.0)
        assert ledger.outcome_order == sorted(ledger.outcome_order)
        lengths.append(len(ledger.outcome_order))

    assert max(before - after for before, after in pairwise(lengths)) <= 100
    assert kept <= set(ledger.outcome_order)


@pytest.mark.parametrize("count", [1, 3, 50])
def test_consumers_that_end_together_are_counted_down(monkeypatch, count):
    state = QueueState()
    members = [Member() for _ in range(count)]
    for number, member in enumerate(members):
        hello = c.Hello(c.PROTOCOL_VERSION, "consumer", f"c{number}", f"w{number}", tasks=["m:f"])
        assert isinstance(apply(state, hello, member, 0.0), r.Welcome)
    assert state.consumers == count
    monkeypatch.setattr(state, "count_consumers", lambda: pytest.fail("all are looked at for each that ends"))
    for left, member in enumerate(reversed(members)):
        apply(state, c.Leave(), member, 0.0)
        assert state.consumers == count - left - 1
