"""Keys and due times of their own are columns of a chunk: such jobs share rows and chunks."""

from __future__ import annotations

import math

import pytest

from svc.domain import commands as c
from svc.domain import events as e
from svc.domain import replies as r
from svc.domain import upkeep
from svc.domain.admission import RUN_JOBS_MAX
from svc.domain.apply import apply
from svc.domain.chunk import GROWN_JOBS_MAX
from svc.domain.due import CANCELLED_MAX
from svc.domain.enrolment import give_up, recover
from svc.domain.job import NewChunk, Terms
from svc.domain.ledger import Ledger
from svc.domain.lifecycle import JobState
from svc.domain.members import Member
from svc.domain.queue_state import QueueState
from svc.domain.replay import replay
from tests.support.memory_journals import copied
from tests.support.state_checks import entries
from tests.unit.domain.test_grown_chunks import Queue, bodies, kinds, merge

TERMS = Terms("m:f")
COUNT = 5


@pytest.fixture
def queue() -> Queue:
    return Queue()


def submit(queue: Queue, chunks: list[NewChunk], origin: str = "o") -> list[r.Note]:
    reply = apply(queue.state, c.Submit(origin, chunks), Member(), queue.now)
    assert isinstance(reply, r.Accepted)
    queue.commit()
    return reply.notes


def ones(count: int, *, keyed: bool = False, delayed: bool = False, first: int = 0) -> list[NewChunk]:
    numbers = range(first, first + count)
    return [
        NewChunk(n, TERMS, [b"%d" % n], float(n + 1) if delayed else 0.0, f"key-{n}" if keyed else "")
        for n in numbers
    ]


def wake(queue: Queue, now: float) -> None:
    queue.now = now
    upkeep.tick(queue.state, now)
    queue.commit()


def restarted(queue: Queue) -> Queue:
    again = Queue(queue.state.limits)
    again.journal = copied(queue.journal)
    again.state = QueueState(read=again.journal.read, limits=queue.state.limits)
    for sequence, event in again.journal.replay():
        replay(again.state.ledger, sequence, event)
    recover(again.state, queue.now)
    again.now = queue.now
    give_up(again.state, again.now)
    again.commit()
    return again


SHAPES = {
    "with keys": {"keyed": True},
    "with delays": {"delayed": True},
    "with both": {"keyed": True, "delayed": True},
    "with neither": {},
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_chunks_of_one_that_come_together_are_one_row_and_one_chunk(queue, shape):
    submit(queue, ones(RUN_JOBS_MAX, **shape))

    assert kinds(queue) == ["Submitted"]
    assert queue.chunks() == [("o", 0, RUN_JOBS_MAX)]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_jobs_that_come_one_by_one_share_a_chunk(queue, shape):
    for one in ones(GROWN_JOBS_MAX + 1, **shape):
        apply(queue.state, c.Submit("o", [one]), Member(), 0.0)
    queue.commit()

    assert queue.chunks() == [("o", 0, GROWN_JOBS_MAX), ("o", GROWN_JOBS_MAX, 1)]


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_jobs_that_have_waited_are_put_into_one_row_with_their_keys_and_delays(queue, shape):
    for one in ones(COUNT, **shape):
        submit(queue, [one])
    merge(queue)

    assert kinds(queue) == ["Merged"]
    again = restarted(queue)
    wake(again, again.now + COUNT)
    assert bodies(again.lease(COUNT)) == [b"%d" % number for number in range(COUNT)]


def test_more_jobs_than_one_row_takes_are_several_rows(queue):
    submit(queue, ones(RUN_JOBS_MAX + 1, keyed=True))

    assert [chunk[2] for chunk in queue.chunks()] == [RUN_JOBS_MAX, 1]


@pytest.mark.parametrize("together", [True, False], ids=["in one command", "one by one"])
def test_each_key_finds_its_own_job(queue, together):
    jobs = ones(COUNT, keyed=True)
    for command in [jobs] if together else [[job] for job in jobs]:
        assert submit(queue, command) == []

    for number, job in enumerate(jobs):
        again = NewChunk(0, job.terms, job.bodies, 0.0, job.key)
        other = NewChunk(1, job.terms, [b"other"], 0.0, job.key)
        for state in (queue, restarted(queue)):
            same, conflict = submit(state, [again, other], origin="p")
            assert (same.chunk, same.id, same.code) == (0, f"o-{number}", "")
            assert (conflict.id, conflict.code) == (f"o-{number}", "conflict")
    assert len(queue.chunks()) == 1


def test_a_key_that_comes_twice_in_one_command_is_one_job(queue):
    jobs = [NewChunk(number, TERMS, [b"same"], 0.0, "key") for number in range(3)]

    assert submit(queue, jobs) == [r.Note(1, "o-0"), r.Note(2, "o-0")]
    assert queue.chunks() == [("o", 0, 1)]


@pytest.mark.parametrize("wrong", [0, 2, 4], ids=["first", "middle", "last"])
def test_a_refused_chunk_leaves_those_around_it_accepted(queue, wrong):
    jobs = ones(COUNT, keyed=True)
    jobs[wrong] = NewChunk(wrong, TERMS, [], 0.0, "key")

    assert [(note.chunk, note.code) for note in submit(queue, jobs)] == [(wrong, "bad_request")]
    assert bodies(queue.lease(9) + queue.lease(9)) == [b"%d" % n for n in range(COUNT) if n != wrong]


def test_a_command_that_is_sent_again_changes_nothing(queue):
    jobs = ones(COUNT, keyed=True, delayed=True)
    submit(queue, jobs)

    assert submit(queue, jobs) == []
    assert submit(queue, jobs[:2]) == []
    assert queue.chunks() == [("o", 0, COUNT)]


def test_jobs_with_and_without_keys_and_delays_share_a_chunk_and_stay_what_they_are(queue):
    submit(queue, [NewChunk(0, TERMS, [b"0"])])
    submit(queue, [NewChunk(1, TERMS, [b"1"], 9.0)])
    submit(queue, [NewChunk(2, TERMS, [b"2"], 0.0, "key")])
    submit(queue, [NewChunk(3, TERMS, [b"3"], 5.0, "other")])
    assert queue.chunks() == [("o", 0, 4)]

    for each in (queue, restarted(queue)):
        views = apply(each.state, c.Get([f"o-{number}" for number in range(4)]), Member(), each.now)
        assert isinstance(views, r.Views)
        assert [view.key for view in views.jobs] == ["", "", "key", "other"]
        assert [view.due_at for view in views.jobs] == [None, 9.0, None, 5.0]
        assert bodies(each.lease(9) + each.lease(9)) == [b"0", b"2"]
        wake(each, 5.0)
        assert bodies(each.lease(9)) == [b"3"]
        wake(each, 9.0)
        assert bodies(each.lease(9)) == [b"1"]


@pytest.mark.parametrize("together", [True, False], ids=["in one command", "one by one"])
@pytest.mark.parametrize("delays", [(1, 2, 3), (3, 2, 1), (2, 2, 1), (2, 3, 1)])
def test_each_delayed_job_is_ready_at_its_own_time(queue, delays, together):
    jobs = [NewChunk(n, TERMS, [b"%d" % n], float(delay)) for n, delay in enumerate(delays)]
    for command in [jobs] if together else [[job] for job in jobs]:
        submit(queue, command)

    for each in (restarted(queue), queue):
        for now in range(1, max(delays) + 1):
            assert each.state.scheduled.next_at < math.inf
            wake(each, max(float(now), each.now))
            if now >= each.now:
                assert sorted(bodies(each.lease(9) + each.lease(9) + each.lease(9))) == [
                    b"%d" % n for n, delay in enumerate(delays) if delay == now
                ]
        assert each.state.scheduled.next_at == math.inf


def test_jobs_that_become_ready_together_are_taken_in_the_order_of_their_age(queue):
    submit(queue, [NewChunk(number, TERMS, [b"%d" % number], float(9 - number)) for number in range(COUNT)])
    wake(queue, 10.0)

    assert bodies(queue.lease(9)) == [b"%d" % number for number in range(COUNT)]


def test_a_cancelled_one_of_several_delayed_jobs_stays_cancelled(queue):
    submit(queue, ones(COUNT, delayed=True))
    assert apply(queue.state, c.Cancel(["o-0", "o-2"]), Member(), queue.now) == r.Done(2)
    wake(queue, float(COUNT))

    assert bodies(queue.lease(9) + queue.lease(9)) == [b"1", b"3", b"4"]


def test_cancelled_jobs_leave_nothing_in_the_schedule(queue):
    rounds = 3 * CANCELLED_MAX
    for number in range(rounds):
        queue.submit(2 * number, commit=False, delay=1e9)  # numbers with gaps, so that each is a chunk
        apply(queue.state, c.Cancel([f"o-{2 * number}"]), Member(), 0.0)

    assert entries(queue.state.scheduled) <= CANCELLED_MAX


def test_many_jobs_that_are_due_together_are_made_ready_by_several_looks(queue, monkeypatch):
    monkeypatch.setattr("svc.domain.queue_state.WAKE_JOBS_MAX", COUNT)
    for origin in range(3):
        submit(queue, [NewChunk(0, TERMS, [b"x"] * COUNT, 1.0)], origin=f"o{origin}")
    ready = []
    for _ in range(3):
        wake(queue, 1.0)
        ready.append(queue.state.ledger.counts["default"][JobState.READY])

    assert ready == [COUNT, 2 * COUNT, 3 * COUNT]


def test_rows_of_the_last_release_with_a_key_or_a_delay_open():
    """They had `due` and `key` of an only job, and nothing behind."""
    old = [
        e.Submitted(1.0, "o", 0, TERMS, [b"0"], 5.0, "a"),
        e.Submitted(1.0, "o", 1, TERMS, [b"1"], None, "b"),
        e.Submitted(1.0, "o", 2, TERMS, [b"2"], 7.0),
        e.Submitted(1.0, "o", 3, TERMS, [b"3", b"4"], 7.0),
    ]
    ledger = Ledger()
    for sequence, event in enumerate(old, start=1):
        replay(ledger, sequence, event)

    (chunk,) = ledger.chunks.values()
    assert [chunk.due_of(index) for index in range(5)] == [5.0, None, 7.0, 7.0, 7.0]
    assert [chunk.key_of(index) for index in range(5)] == ["a", "b", "", "", ""]
    assert (len(ledger.keys), ledger.keys.find("a"), ledger.keys.find("b")) == (2, (chunk, 0), (chunk, 1))
