"""A number that its origin has already: the same job again changes nothing, another job is a conflict."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from svc.domain.job import NewChunk
from svc.domain.limits import Limits
from tests.support.asking import ack_of, chunk, counts, lease, lease_one, record, submit
from tests.support.engines import ENGINES, LIMITS

#: Jobs that are not those of `chunk(0, 3)`, and have numbers of theirs.
OTHERS = {
    "first body": NewChunk(0, chunk().terms, [b"x", b"1", b"2"]),
    "last body": NewChunk(0, chunk().terms, [b"0", b"1", b"x"]),
    "all bodies": NewChunk(0, chunk().terms, [b"x", b"y", b"z"]),
    "empty body": NewChunk(0, chunk().terms, [b"", b"1", b"2"]),
    "longer body": NewChunk(0, chunk().terms, [b"00", b"1", b"2"]),
    "order": NewChunk(0, chunk().terms, [b"1", b"0", b"2"]),
    "one of them": NewChunk(1, chunk().terms, [b"x"]),
    "some of them": NewChunk(2, chunk().terms, [b"x", b"3"]),
    "task": chunk(0, 3, task="m:g"),
    "queue": chunk(0, 3, queue="q"),
    "priority": chunk(0, 3, priority=1),
    "codec": chunk(0, 3, codec="pickle"),
    "retries": chunk(0, 3, retries=0),
    "timeout": chunk(0, 3, timeout=1.0),
    "soft timeout": chunk(0, 3, soft_timeout=1.0),
    "memory": chunk(0, 3, max_rss=1 << 30),
    "key": chunk(1, 1, key="k"),
}


@pytest.fixture(params=OTHERS)
def other(request: pytest.FixtureRequest) -> NewChunk:
    return OTHERS[request.param]


def refused(queue, jobs: NewChunk) -> bool:
    """Submit *jobs*; return whether that was a conflict after which the client may number anew."""
    notes = submit(queue, jobs)
    return [(note.chunk, note.code, note.anew) for note in notes] == [(0, "conflict", True)]


def test_another_job_under_a_known_number_is_a_conflict(queue, other):
    submit(queue, chunk(0, 3))
    assert refused(queue, other)
    assert counts(queue).submitted == 3


def test_it_is_one_after_a_restart(engine, other):
    submit(engine.client(), chunk(0, 3))
    engine.restart()
    queue = engine.client()
    assert refused(queue, other)
    assert submit(queue, chunk(0, 3)) == []


def test_it_is_one_once_the_jobs_have_ended(engine, queue, other):
    submit(queue, chunk(0, 3))
    consumer = engine.consumer()
    for delivery in lease(consumer, 3):
        record(consumer, ack_of(delivery))
    assert refused(queue, other)
    assert submit(queue, chunk(0, 3)) == []


def test_it_is_one_if_the_jobs_came_one_by_one(queue, other):
    for number in range(3):
        submit(queue, chunk(number))
    assert refused(queue, other)
    assert [submit(queue, chunk(number)) for number in range(3)] == [[], [], []]


def test_it_is_one_after_the_jobs_were_merged_into_one_row(engine, queue, other):
    for number in range(3):
        submit(queue, chunk(number))
    engine.advance(engine.limits.merge_seconds + 1)
    submit(queue, origin="p")
    engine.restart()
    queue = engine.client()
    assert refused(queue, other)
    assert submit(queue, chunk(0, 3)) == []


@pytest.mark.parametrize("kind", ENGINES)
def test_it_is_one_if_the_jobs_are_in_the_journal_alone(kind, tmp_path, other):
    limits: Limits = replace(LIMITS, window_bytes=1)
    engine = ENGINES[kind](tmp_path, limits)
    try:
        queue = engine.client()
        submit(queue, chunk(0, 3))
        assert refused(queue, other)
        assert submit(queue, chunk(0, 3)) == []
    finally:
        engine.close()


def test_jobs_with_keys_repeat_with_the_same_keys_alone(queue):
    keyed = [chunk(number, key=f"k{number}") for number in range(3)]
    submit(queue, *keyed)
    assert submit(queue, *keyed) == []
    (note,) = submit(queue, keyed[0], chunk(1, key="other"), keyed[2])
    assert (note.chunk, note.code, note.anew) == (1, "conflict", True)
    assert refused(queue, chunk(2))


def test_what_goes_beyond_the_known_numbers_is_no_case_for_numbering_anew_if_the_rest_is_the_same(queue):
    """Who divides the same jobs in another way may have sent some of them before."""
    submit(queue, chunk(0, 3))
    (note,) = submit(queue, chunk(1, 5))
    assert (note.code, note.anew) == ("conflict", False)


def test_one_conflict_leaves_the_other_chunks_of_its_submit_alone(queue):
    submit(queue, chunk(0, 3))
    notes = submit(queue, chunk(0, 3), OTHERS["task"], chunk(3, 2))
    assert [(note.chunk, note.code) for note in notes] == [(1, "conflict")]
    assert counts(queue).submitted == 5


def test_a_delay_that_is_told_anew_is_the_same_job(queue):
    """It counts from the submit, and the first one may have been a while ago."""
    submit(queue, chunk(0, delay=60.0))
    assert submit(queue, chunk(0, delay=59.0)) == []


def test_the_numbers_of_jobs_that_are_no_longer_kept_only_count_as_known(engine, queue):
    submit(queue, chunk(0, 3))
    consumer = engine.consumer()
    for delivery in lease(consumer, 3):
        record(consumer, ack_of(delivery))
    engine.advance(engine.limits.retention_seconds + 1)
    engine.restart()
    assert submit(engine.client(), OTHERS["all bodies"]) == []
    assert lease(engine.consumer()) == []


def test_a_leased_job_is_told_apart_too(engine, queue):
    submit(queue, chunk(0))
    held = lease_one(engine.consumer())
    assert refused(queue, NewChunk(0, chunk().terms, [b"x"]))
    assert held.bodies == [b"0"]


def test_a_submit_reads_a_bounded_part_of_the_journal_to_compare(tmp_path):
    """And it never says "known" of a job that it has not compared."""
    size = 1024 * 1024
    limits: Limits = replace(LIMITS, window_bytes=1, max_job_bytes=size, max_queue_jobs=100)
    engine = ENGINES["local-sqlite"](tmp_path, limits)
    try:
        queue = engine.client()
        jobs = [NewChunk(number, chunk(task=f"m:f{number}").terms, [bytes(size)]) for number in range(20)]
        for each in jobs:
            submit(queue, each)
        notes = submit(queue, *jobs)
        assert {note.code for note in notes} == {"bad_request"}
        assert len(notes) >= len(jobs) // 2
        assert all(submit(queue, each) == [] for each in jobs)
    finally:
        engine.close()


def test_a_client_of_an_earlier_release_reads_the_note():
    """It knows the first four fields of it."""

    class Earlier(msgspec.Struct, frozen=True, array_like=True):
        chunk: int
        id: str = ""
        code: str = ""
        message: str = ""

    from svc.domain.replies import Note

    sent = msgspec.msgpack.encode(Note(3, code="conflict", message="no", anew=True))
    assert msgspec.msgpack.decode(sent, type=Earlier) == Earlier(3, "", "conflict", "no")
