"""Jobs that are submitted one by one share a chunk, and nothing else about them changes."""

from __future__ import annotations

import gc

import pytest

from svc.broker.journal import MemoryJournal
from svc.domain import commands as c
from svc.domain import events as e
from svc.domain import replies as r
from svc.domain import upkeep
from svc.domain.apply import apply
from svc.domain.chunk import BODY_OVERHEAD_BYTES, GROWN_JOBS_MAX
from svc.domain.enrolment import give_up, recover
from svc.domain.job import ErrorInfo, NewChunk, Terms
from svc.domain.ledger import Ledger
from svc.domain.limits import Limits
from svc.domain.members import Member
from svc.domain.queue_state import QueueState
from svc.domain.replay import replay
from tests.support.state_checks import about_jobs, check_journal, check_state

TERMS = Terms("m:f")
LATER = Terms("m:f", priority=-1)


class Queue:
    """A queue state with its journal; each submit is a turn of its own unless *commit* is false."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.journal = MemoryJournal()
        self.state = QueueState(read=self.journal.read, limits=limits or Limits(retention_seconds=10.0))
        self.now = 0.0

    def submit(
        self, first: int, count: int = 1, origin: str = "o", terms: Terms = TERMS, commit: bool = True, **more
    ) -> None:
        bodies = [f"{origin}-{first + index}".encode() for index in range(count)]
        command = c.Submit(origin, [NewChunk(first, terms, bodies, **more)])
        assert apply(self.state, command, Member(), self.now) == r.Accepted([])
        if commit:
            self.commit()

    def commit(self) -> None:
        self.journal.append(*self.state.take_events())
        check_state(self.state)
        check_journal(self.state, self.journal)

    def lease(self, limit: int) -> list[r.Delivery]:
        grant = apply(self.state, c.Lease(limit), Member("plain"), self.now)
        assert isinstance(grant, r.Grant)
        return grant.deliveries

    def finish(self, deliveries: list[r.Delivery]) -> None:
        for each in deliveries:
            count = len(each.bodies)
            ack = c.Ack(each.token, each.first, [b"r"] * count, [0.0] * count)
            assert apply(self.state, ack, Member("plain"), self.now) == r.Done(1)
        self.commit()

    def chunks(self) -> list[tuple[str, int, int]]:
        return [(each.origin, each.first, each.count) for each in self.state.ledger.chunks.values()]


@pytest.fixture
def queue() -> Queue:
    return Queue()


def bodies(deliveries: list[r.Delivery]) -> list[bytes]:
    return [body for each in deliveries for body in each.bodies]


def test_jobs_submitted_one_by_one_are_one_chunk_and_one_delivery(queue):
    for number in range(5):
        queue.submit(number)

    assert queue.chunks() == [("o", 0, 5)]
    (delivery,) = queue.lease(5)
    assert delivery.bodies == [b"o-0", b"o-1", b"o-2", b"o-3", b"o-4"]


def test_the_journal_has_each_submit_as_it_was_also_within_one_turn(queue):
    queue.submit(0, commit=False)
    queue.submit(1, 2, commit=False)
    queue.submit(3)

    events = [event for _, event in queue.journal.replay()]

    assert all(isinstance(event, e.Submitted) for event in events)
    assert [event.bodies for event in events] == [[b"o-0"], [b"o-1", b"o-2"], [b"o-3"]]


def test_a_chunk_grows_up_to_a_bound(queue):
    for number in range(GROWN_JOBS_MAX + 1):
        queue.submit(number, commit=False)
    queue.commit()

    assert queue.chunks() == [("o", 0, GROWN_JOBS_MAX), ("o", GROWN_JOBS_MAX, 1)]


@pytest.mark.parametrize(
    "second",
    [{"terms": LATER}, {"count": GROWN_JOBS_MAX}],
    ids=["other terms", "too many"],
)
def test_jobs_that_differ_begin_a_chunk_of_their_own(queue, second):
    queue.submit(0)
    queue.submit(1, **second)

    assert len(queue.chunks()) == 2


def test_jobs_of_several_clients_keep_their_order(queue):
    for number in range(3):
        queue.submit(number, origin="a")
        queue.submit(number, origin="b")

    assert len(queue.chunks()) == 2
    assert bodies(queue.lease(9)) == [b"a-0", b"b-0", b"a-1", b"b-1", b"a-2", b"b-2"]


def test_jobs_of_several_clients_keep_their_order_over_a_restart(queue):
    for number in range(3):
        queue.submit(number, origin="a")
        queue.submit(number, origin="b")
    again = Queue()
    for sequence, event in queue.journal.replay():
        replay(again.state.ledger, sequence, event)

    recover(again.state, 0.0)
    give_up(again.state, again.now)

    assert bodies(again.lease(9)) == [b"a-0", b"b-0", b"a-1", b"b-1", b"a-2", b"b-2"]


def test_each_job_has_its_own_time_of_submission(queue):
    for number in range(3):
        queue.now = float(number)
        queue.submit(number)
    queue.now = 10.0

    listing = apply(queue.state, c.Get([f"o-{number}" for number in range(3)]), Member(), queue.now)

    assert isinstance(listing, r.Views)
    assert [view.submitted_at for view in listing.jobs] == [0.0, 1.0, 2.0]
    assert [queue.lease(1)[0].waited for _ in range(3)] == [10.0, 9.0, 8.0]


def test_a_chunk_that_has_finished_grows_no_more(queue):
    queue.submit(0)
    queue.finish(queue.lease(1))
    queue.submit(1)

    assert queue.chunks() == [("o", 0, 1), ("o", 1, 1)]


def test_a_chunk_grows_while_its_first_jobs_have_ended(queue):
    queue.submit(0, 2)
    queue.finish(queue.lease(1))
    queue.submit(2)
    queue.finish(queue.lease(9))

    assert queue.chunks() == [("o", 0, 3)]
    queue.now = 11.0
    upkeep.tick(queue.state, queue.now)
    queue.commit()
    assert not queue.chunks()
    assert set(kinds(queue)) == {"Forgotten"}


def test_growing_does_not_depend_on_chunks_that_a_restart_will_not_know(queue):
    """Job 5 is forgotten before the restart, so a replay meets job 1 right behind job 0."""
    queue.submit(0)
    queue.submit(5, terms=Terms("m:f", priority=1))
    queue.submit(1)
    queue.finish(queue.lease(1))
    queue.now = 11.0
    upkeep.tick(queue.state, queue.now)

    queue.commit()  # compares with a replay

    assert queue.chunks() == [("o", 0, 2)]


def test_arguments_beyond_the_window_are_read_from_the_row_of_each_job():
    queue = Queue(Limits(window_bytes=2 * (3 + BODY_OVERHEAD_BYTES)))
    for first, count in ((0, 1), (1, 1), (2, 2), (4, 1)):
        queue.submit(first, count)

    assert queue.state.ledger.window.used == 0
    assert bodies(queue.lease(4)) == [b"o-0", b"o-1", b"o-2", b"o-3"]
    assert bodies(queue.lease(4)) == [b"o-4"]


def merge(queue: Queue) -> None:
    """Let the jobs wait until they are merged."""
    queue.now += queue.state.limits.merge_seconds
    upkeep.tick(queue.state, queue.now)
    queue.commit()


def kinds(queue: Queue) -> list[str]:
    return [type(event).__name__ for event in about_jobs(each for _, each in queue.journal.replay())]


def test_jobs_that_wait_for_long_are_put_into_one_row_and_stay_what_they_are(queue):
    for number in range(3):
        queue.now = float(number)
        queue.submit(number)
        queue.submit(number, origin="b")
    merge(queue)

    assert kinds(queue) == ["Merged", "Merged"]
    assert bodies(queue.lease(9)) == [b"o-0", b"b-0", b"o-1", b"b-1", b"o-2", b"b-2"]


def test_merged_jobs_keep_their_order_and_their_times_over_a_restart(queue):
    for number in range(3):
        queue.now = float(number)
        queue.submit(number, origin="a")
        queue.submit(number, origin="b")
    queue.submit(0, origin="later", delay=0.5)
    merge(queue)
    again = Queue()
    again.journal = queue.journal
    again.state.read = queue.journal.read
    for sequence, event in queue.journal.replay():
        replay(again.state.ledger, sequence, event)

    recover(again.state, queue.now)
    again.now = queue.now
    give_up(again.state, again.now)

    assert bodies(again.lease(9)) == [b"a-0", b"b-0", b"a-1", b"b-1", b"a-2", b"b-2", b"later-0"]
    listed = apply(again.state, c.List(limit=9), Member(), again.now)
    assert isinstance(listed, r.Views)
    assert [view.id for view in listed.jobs if view.id.startswith("a")] == ["a-2", "a-1", "a-0"]
    assert [view.submitted_at for view in listed.jobs if view.id.startswith("a")] == [2.0, 1.0, 0.0]


def test_merged_jobs_are_run_and_forgotten_like_others(queue):
    for number in range(3):
        queue.submit(number)
    merge(queue)
    queue.submit(3)
    assert queue.chunks() == [("o", 0, 3), ("o", 3, 1)], "a merged chunk grows no more"

    queue.finish(queue.lease(9))
    queue.finish(queue.lease(9))
    queue.now += 11.0
    upkeep.tick(queue.state, queue.now)
    queue.commit()

    assert kinds(queue) == ["Forgotten"]


def test_jobs_of_which_one_has_ended_or_failed_are_not_merged(queue):
    for number in range(2):
        queue.submit(number)
        queue.submit(number, origin="b")
    queue.finish(queue.lease(1))
    (delivery,) = queue.lease(1)
    nack = c.Nack(delivery.token, delivery.first, ErrorInfo("E", "no"), 0.0)
    assert apply(queue.state, nack, Member("plain"), queue.now) == r.Done(1)

    merge(queue)

    assert "Merged" not in kinds(queue)


def test_bodies_that_are_in_the_journal_only_are_merged_too():
    queue = Queue(Limits(window_bytes=0))
    for number in range(3):
        queue.submit(number)
    merge(queue)

    assert kinds(queue) == ["Merged"]
    assert bodies(queue.lease(3)) == [b"o-0", b"o-1", b"o-2"]


def test_one_tick_merges_a_few_chunks_and_the_next_ones_the_others(queue):
    for origin in range(upkeep.MERGE_CHUNKS_MAX + 1):
        queue.submit(0, origin=f"o{origin}")
        queue.submit(1, origin=f"o{origin}")
    merge(queue)
    assert kinds(queue).count("Merged") == upkeep.MERGE_CHUNKS_MAX

    merge(queue)
    assert kinds(queue).count("Merged") == upkeep.MERGE_CHUNKS_MAX + 1


def test_a_ledger_of_jobs_submitted_one_by_one_is_a_few_hundred_chunks_not_a_million():
    ledger = Ledger()
    for number in range(10_000):
        replay(ledger, number + 1, e.Submitted(0.0, "o", number, TERMS, [b"x"]))

    assert len(ledger.chunks) == -(-10_000 // GROWN_JOBS_MAX)


def test_the_garbage_collector_passes_over_the_bodies_of_a_large_chunk_that_waits():
    queue = Queue()
    queue.submit(0, 1000)
    (chunk,) = queue.state.ledger.chunks.values()
    gc.collect()
    assert chunk._bodies is not None
    assert len(chunk._bodies) == 1000
    assert not gc.is_tracked(chunk._bodies)
