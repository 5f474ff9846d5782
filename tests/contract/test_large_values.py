"""Large values on every engine: stored in pieces before their job, and read while it is kept."""

from __future__ import annotations

import pytest

from svc.domain import commands as c
from svc.domain.job import NewChunk, Terms
from svc.domain.names import LARGE
from svc.domain.pieces import UNCLAIMED_MAX
from svc.errors import (
    BadRequest,
    Conflict,
    Draining,
    JobTooLarge,
    JournalFull,
    LargeValueLost,
    LeaseLost,
    QueueFull,
    UnknownJob,
)
from tests.support.asking import ack_of, lease, lease_one, nack_of, record
from tests.support.engines import LIMITS
from tests.support.large_values import (
    ACCEPT,
    PIECE,
    VALUE,
    acked,
    argument,
    kept,
    large_chunk,
    pieces,
    put,
    put_result,
    result,
    submit,
    wait_unclaimed,
)

# --- arguments ----------------------------------------------------------------------------------------------


def test_a_job_gets_its_large_arguments_under_its_token(engine, queue):
    assert put(queue) == len(VALUE)
    put(queue, VALUE[::-1], place=2)
    assert submit(queue, len(VALUE), len(VALUE)) == ""
    consumer = engine.consumer(accept=ACCEPT)
    delivery = lease_one(consumer)
    assert argument(consumer, delivery) == VALUE
    assert argument(queue, delivery, place=2) == VALUE[::-1]


def test_a_job_is_not_accepted_without_its_large_arguments(queue):
    assert submit(queue, len(VALUE)) == "large_value_lost"
    put(queue, VALUE[:PIECE] * 2)
    assert submit(queue, len(VALUE)) == "large_value_lost"
    assert queue.get(["o-0"]) == []


def test_a_job_is_not_accepted_while_a_piece_is_missing(queue):
    part = pieces(VALUE)[0]
    queue.store([c.StorePiece("o", 0, 1, len(VALUE), *part)])
    assert submit(queue, len(VALUE)) == "large_value_lost"


def test_an_empty_value_needs_no_piece(queue):
    assert submit(queue, 0) == ""


def test_the_codec_and_the_sizes_of_large_arguments_go_together(queue):
    bare = NewChunk(0, Terms("m:f", codec=LARGE), [b"body"])
    plain = NewChunk(0, Terms("m:f"), [b"body"], large=[0])
    several = NewChunk(0, Terms("m:f", codec=LARGE), [b"body", b"body"], large=[0])
    for chunk in (bare, plain, several):
        assert [note.code for note in queue.submit("o", [chunk])] == ["bad_request"]


def test_a_repeated_piece_changes_nothing_and_a_gap_is_told(engine, queue):
    first, second, third = (c.StorePiece("o", 0, 1, len(VALUE), *part) for part in pieces(VALUE))
    assert queue.store([third]) == 0
    assert queue.store([first]) == PIECE
    assert queue.store([third]) == PIECE
    assert queue.store([first]) == PIECE
    assert queue.store([second, third, third, first]) == len(VALUE)
    assert submit(queue, len(VALUE)) == ""
    assert argument(queue, lease_one(engine.consumer(accept=ACCEPT))) == VALUE


def test_a_piece_of_another_length_is_refused(queue):
    with pytest.raises(BadRequest):
        queue.store([c.StorePiece("o", 0, 1, len(VALUE), 0, VALUE[: PIECE - 1])])
    with pytest.raises(BadRequest):
        queue.store([c.StorePiece("o", 0, 1, PIECE, 0, VALUE[: PIECE + 1])])


def test_large_arguments_outlive_a_restart_in_the_middle(engine, queue):
    first, *rest = (c.StorePiece("o", 0, 1, len(VALUE), *part) for part in pieces(VALUE))
    queue.store([first])
    engine.restart()
    assert engine.client().store(rest) == len(VALUE)
    assert submit(engine.client(), len(VALUE)) == ""
    engine.restart()
    engine.advance(2.0)
    assert argument(engine.client(), lease_one(engine.consumer(accept=ACCEPT))) == VALUE


def test_a_value_without_a_job_is_removed_after_a_while(engine, queue):
    put(queue)
    wait_unclaimed(engine)
    assert kept(engine) == 0
    assert submit(queue, len(VALUE)) == "large_value_lost"


def test_a_removed_value_takes_no_room_after_a_restart(engine, queue):
    """The row of its last piece may be the newest one of the journal, which stays in its file."""
    put(queue)
    wait_unclaimed(engine)
    engine.restart()
    assert kept(engine) == 0


def test_a_value_of_a_lost_client_is_removed_after_a_restart(engine, queue):
    put(queue)
    engine.cut(queue)
    engine.restart()
    wait_unclaimed(engine)
    assert kept(engine) == 0


def test_an_argument_is_kept_as_long_as_its_job_may_run(engine, queue):
    put(queue)
    submit(queue, len(VALUE))
    wait_unclaimed(engine)
    consumer = engine.consumer(accept=ACCEPT)
    record(consumer, nack_of(lease_one(consumer), None))
    wait_unclaimed(engine)
    queue.requeue(["o-0"])
    engine.supervisor()
    consumer = engine.consumer(accept=ACCEPT)
    delivery = lease_one(consumer)
    assert argument(consumer, delivery) == VALUE
    record(consumer, ack_of(delivery))
    assert kept(engine) == 0


def test_the_arguments_of_a_cancelled_job_are_removed(engine, queue):
    put(queue)
    submit(queue, len(VALUE))
    queue.cancel(["o-0"])
    assert kept(engine) == 0


def test_a_consumer_that_does_not_know_large_values_gets_no_such_job(engine, queue):
    put(queue)
    submit(queue, len(VALUE))
    old = engine.consumer("w-1", accept=None)
    assert lease(old) == []
    (view,) = queue.get(["o-0"])
    assert "start one of this release" in view.reason
    lease_one(engine.consumer("w-2", accept=ACCEPT))


def test_an_old_token_reads_no_argument(engine, queue):
    put(queue)
    submit(queue, len(VALUE))
    consumer = engine.consumer(accept=ACCEPT)
    delivery = lease_one(consumer)
    record(consumer, nack_of(delivery, 0.0))
    with pytest.raises(LeaseLost):
        argument(consumer, delivery)


def test_no_piece_is_stored_for_a_job_that_was_submitted(queue):
    put(queue)
    submit(queue, len(VALUE))
    with pytest.raises(Conflict):
        put(queue)


def test_a_repeated_submit_is_answered_as_the_first_one(engine, queue):
    put(queue)
    assert submit(queue, len(VALUE)) == ""
    assert submit(queue, len(VALUE)) == ""
    consumer = engine.consumer(accept=ACCEPT)
    record(consumer, ack_of(lease_one(consumer)))
    assert submit(queue, len(VALUE)) == ""


def test_the_same_key_with_equal_values_is_the_same_job(engine, queue):
    put(queue)
    queue.submit("o", [large_chunk(len(VALUE), key="k")])
    put(queue, origin="p")
    (note,) = queue.submit("p", [large_chunk(len(VALUE), key="k")])
    assert (note.code, bool(note.id)) == ("", True)
    wait_unclaimed(engine)
    assert kept(engine) == len(VALUE)


def test_a_child_stores_under_a_token_in_force(engine, queue):
    queue.submit("o", [NewChunk(0, Terms("m:f"), [b"body"])])
    delivery = lease_one(engine.consumer(accept=ACCEPT))
    one = VALUE[:PIECE]
    assert queue.store([c.StorePiece("child", 0, 1, PIECE, 0, one, delivery.token)]) == PIECE
    with pytest.raises(LeaseLost):
        queue.store([c.StorePiece("other", 0, 1, PIECE, 0, one, delivery.token + 7)])


@pytest.mark.parametrize("origin", ["", "put1", "key.ab.c", "a\nb"])
def test_the_origins_of_the_manager_take_no_pieces(queue, origin):
    with pytest.raises(BadRequest):
        put(queue, origin=origin)


# --- results ------------------------------------------------------------------------------------------------


def test_a_large_result_is_read_by_the_id_of_its_job(engine, queue):
    queue.submit("o", [NewChunk(0, Terms("m:f"), [b"body"])])
    consumer = engine.consumer(accept=ACCEPT)
    delivery = lease_one(consumer)
    assert put_result(consumer, delivery) == len(VALUE)
    with pytest.raises(BadRequest):
        result(queue)
    acked(consumer, delivery)
    wait_unclaimed(engine)
    assert result(queue) == VALUE
    engine.restart()
    wait_unclaimed(engine)
    assert result(engine.client()) == VALUE


def test_the_result_of_a_lost_attempt_is_removed(engine, queue):
    queue.submit("o", [NewChunk(0, Terms("m:f"), [b"body"])])
    consumer = engine.consumer(accept=ACCEPT)
    delivery = lease_one(consumer)
    put_result(consumer, delivery)
    record(consumer, nack_of(delivery, 0.0))
    with pytest.raises(LeaseLost):
        put_result(consumer, delivery)
    wait_unclaimed(engine)
    assert kept(engine) == 0


def test_only_the_attempt_that_is_recorded_gives_the_result(engine, queue):
    queue.submit("o", [NewChunk(0, Terms("m:f"), [b"body"])])
    consumer = engine.consumer(accept=ACCEPT)
    first = lease_one(consumer)
    put_result(consumer, first, VALUE[::-1])
    record(consumer, nack_of(first, 0.0))
    second = lease_one(consumer)
    put_result(consumer, second)
    acked(consumer, second)
    assert result(queue) == VALUE


def test_an_ack_whose_large_result_is_lost_is_refused_and_the_job_runs_again(engine, queue):
    queue.submit("o", [NewChunk(0, Terms("m:f"), [b"body"])])
    consumer = engine.consumer(accept=ACCEPT)
    delivery = lease_one(consumer)
    part = pieces(VALUE)[0]
    queue.store([c.StoreResultPiece(delivery.token, 0, len(VALUE), *part)])
    with pytest.raises(LeaseLost):
        acked(consumer, delivery)
    assert lease_one(consumer).token != delivery.token


def test_a_large_result_goes_with_its_job(engine, queue):
    queue.submit("o", [NewChunk(0, Terms("m:f"), [b"body"])])
    consumer = engine.consumer(accept=ACCEPT)
    delivery = lease_one(consumer)
    put_result(consumer, delivery)
    acked(consumer, delivery)
    engine.advance(LIMITS.retention_seconds + 1)
    engine.advance(1.0)
    assert kept(engine) == 0
    with pytest.raises(UnknownJob):
        result(queue)


def test_a_purged_job_takes_its_large_result_with_it(engine, queue):
    queue.submit("o", [NewChunk(0, Terms("m:f"), [b"body"])])
    consumer = engine.consumer(accept=ACCEPT)
    delivery = lease_one(consumer)
    put_result(consumer, delivery)
    acked(consumer, delivery)
    queue.purge(c.Purge(["o-0"]))
    assert kept(engine) == 0


def test_a_result_that_came_whole_has_no_pieces(engine, queue):
    queue.submit("o", [NewChunk(0, Terms("m:f"), [b"body"])])
    consumer = engine.consumer(accept=ACCEPT)
    record(consumer, ack_of(lease_one(consumer)))
    with pytest.raises(LargeValueLost):
        result(queue)


# --- bounds -------------------------------------------------------------------------------------------------


def test_a_value_over_its_bound_is_refused(engine, queue):
    put(queue, bytes(LIMITS.max_value_bytes))
    with pytest.raises(JobTooLarge, match="--max-value-bytes"):
        put(queue, bytes(LIMITS.max_value_bytes + 1), number=1)
    with pytest.raises(JobTooLarge):
        queue.store([c.StorePiece("o", 2, 1, 0, 0, b"")])


def test_arguments_take_three_quarters_of_the_room_and_leave_the_rest_to_results(engine, queue):
    for number in range(3):
        put(queue, bytes(10_000), number=number)
    with pytest.raises(QueueFull, match="--max-values"):
        put(queue, bytes(PIECE), number=3)
    queue.submit("r", [NewChunk(0, Terms("m:f"), [b"body"])])
    delivery = lease_one(engine.consumer(accept=ACCEPT))
    assert put_result(queue, delivery, bytes(10_000)) == 10_000
    wait_unclaimed(engine)
    assert put(queue, bytes(PIECE), number=3) == PIECE


def test_so_many_values_may_be_without_a_job(engine, queue):
    for number in range(UNCLAIMED_MAX):
        queue.store([c.StorePiece("o", number, 1, 1, 0, b"x")])
    with pytest.raises(QueueFull):
        queue.store([c.StorePiece("o", UNCLAIMED_MAX, 1, 1, 0, b"x")])


def store_many(queue, count):
    for first in range(0, count, 250):
        queue.store([c.StorePiece("o", number, 1, 1, 0, b"x") for number in range(first, first + 250)])


def test_arguments_without_a_job_keep_no_result_back(engine, queue):
    """With a key for `submit`, 1,000 bytes a minute ended each attempt that had a large result."""
    store_many(queue, UNCLAIMED_MAX)
    queue.submit("r", [NewChunk(0, Terms("m:f"), [b"body"])])
    assert put_result(queue, lease_one(engine.consumer(accept=ACCEPT))) == len(VALUE)


def test_a_job_makes_room_for_the_next_one_as_soon_as_it_is_submitted(engine, queue):
    store_many(queue, UNCLAIMED_MAX)
    assert submit(queue, 1) == ""
    assert put(queue, number=UNCLAIMED_MAX) == len(VALUE)
    engine.restart()
    queue = engine.client()
    with pytest.raises(QueueFull):
        put(queue, number=UNCLAIMED_MAX + 1)
    assert queue.submit("o", [large_chunk(1, number=1)]) == []
    assert put(queue, number=UNCLAIMED_MAX + 1) == len(VALUE)


def test_values_are_bounded_in_number_and_a_quarter_is_left_to_results(engine, queue, monkeypatch):
    monkeypatch.setattr("svc.domain.pieces.VALUES_MIN", 4)
    for number in range(3):
        put(queue, b"x", number=number)
        assert queue.submit("o", [large_chunk(1, number=number)]) == []
    with pytest.raises(QueueFull, match="--max-values"):
        put(queue, b"x", number=3)
    queue.submit("r", [NewChunk(0, Terms("m:f", large=True), [b"body"] * 2)])
    first, second = (lease_one(engine.consumer(name, accept=["plain"])) for name in ("w-1", "w-2"))
    assert put_result(queue, first) == len(VALUE)
    with pytest.raises(QueueFull, match="--max-values"):
        put_result(queue, second)


def test_a_value_that_the_disk_has_no_room_for_is_refused_at_its_first_piece(engine, queue):
    free = LIMITS.min_free_bytes + len(VALUE)

    def announce(host):
        host.state.free_bytes = free

    engine.inside(announce)
    put(queue)
    engine.inside(announce)
    queue.store([c.StorePiece("o", 1, 1, len(VALUE), 0, VALUE[:PIECE])])
    engine.inside(announce)
    with pytest.raises(JournalFull):
        put(queue, number=2)


def test_no_argument_is_stored_while_new_jobs_are_refused(engine, queue):
    queue.drain(refuse=True)
    with pytest.raises(Draining):
        put(queue)


def test_a_request_for_too_many_pieces_is_refused(engine, queue):
    put(queue)
    submit(queue, len(VALUE))
    delivery = lease_one(engine.consumer(accept=ACCEPT))
    asked = [c.FetchArgument(delivery.token, 0, 1, 0)] * 900
    with pytest.raises(BadRequest, match="ask for less"):
        queue.fetch(asked)
