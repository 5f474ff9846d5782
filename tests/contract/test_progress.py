"""Reports of jobs that run, on every engine: how far they are, and checkpoints for the next attempt."""

from __future__ import annotations

import pytest

from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.field_bounds import CHECKPOINT_MAX
from svc.domain.job_view import Progress
from svc.errors import BadRequest, LeaseLost, UnknownJob
from tests.support.asking import ack_of, chunk, lease, lease_one, nack_of, record, submit


def tell(broker, delivery, done: float, total: float | None = None, note: str = ""):
    report = c.JobProgress(delivery.token, delivery.first, done, total, note)
    return broker.report([c.TellProgress([report])])[0]


def keep(broker, delivery, data: bytes) -> None:
    record(broker, c.Checkpoint(delivery.token, delivery.first, data))


def progress(queue, job: str = "o-0") -> Progress | None:
    found: list[Progress | None] = queue.progress([job])
    return found[0]


# --- progress -------------------------------------------------------------------------------------------


def test_a_job_has_no_progress_before_its_first_report(engine, queue):
    submit(queue)
    assert progress(queue) is None
    lease_one(engine.consumer())
    assert progress(queue) is None


def test_the_last_report_of_a_running_job_is_told_and_shown(engine, queue):
    submit(queue)
    consumer = engine.consumer()
    delivery = lease_one(consumer)
    tell(consumer, delivery, 1, 10)
    tell(consumer, delivery, 3, 10, "reading\x1b[2J")

    told = progress(queue)

    assert told is not None
    assert (told.done, told.total, told.note, told.fraction) == (3, 10, "reading [2J", 0.3)
    assert told.at > 0
    assert queue.get(["o-0"])[0].progress == told


def test_a_total_of_0_has_no_share(engine, queue):
    submit(queue)
    consumer = engine.consumer()
    tell(consumer, lease_one(consumer), 0, 0)
    told = progress(queue)
    assert told is not None
    assert (told.total, told.fraction) == (0, None)


def test_progress_ends_with_the_attempt(engine, queue):
    submit(queue)
    consumer = engine.consumer()
    delivery = lease_one(consumer)
    tell(consumer, delivery, 1)
    record(consumer, nack_of(delivery, 0.0))
    assert progress(queue) is None
    lease_one(consumer)
    assert progress(queue) is None


def test_progress_under_an_old_token_is_refused(engine, queue):
    submit(queue)
    consumer = engine.consumer()
    delivery = lease_one(consumer)
    record(consumer, nack_of(delivery, 0.0))
    lease_one(consumer)
    assert tell(consumer, delivery, 1).code == "lease_lost"
    assert progress(queue) is None


def test_one_message_tells_of_many_leases_and_what_is_not_in_force_changes_nothing(engine, queue):
    submit(queue, chunk(count=5))
    consumer, other = engine.consumer(), engine.consumer("other-1", "other")
    (both,) = lease(consumer, 2)
    alone, ended, others = lease_one(consumer), lease_one(consumer), lease_one(other)
    record(consumer, nack_of(ended, 60.0))
    reports = [
        c.JobProgress(both.token, 0, 1),
        c.JobProgress(alone.token, 2, 2),
        c.JobProgress(both.token, 1, 3),
        c.JobProgress(both.token, 2, 4),  # a job of another lease
        c.JobProgress(ended.token, 3, 5),
        c.JobProgress(others.token, 4, 6),
        c.JobProgress(both.token, 0, 7),
    ]

    assert consumer.report([c.TellProgress(reports)]) == [r.Done(4)]

    found = queue.progress([f"o-{number}" for number in range(5)])
    assert [None if each is None else each.done for each in found] == [7, 3, 2, None, None]


def test_the_progress_of_an_unknown_job_cannot_be_asked_for(queue):
    with pytest.raises(UnknownJob):
        queue.progress(["nobody-0"])


# --- checkpoints ----------------------------------------------------------------------------------------


def test_the_next_attempt_gets_the_last_checkpoint(engine, queue):
    submit(queue)
    consumer = engine.consumer()
    first = lease_one(consumer)
    assert first.checkpoint == b""
    keep(consumer, first, b"one")
    keep(consumer, first, b"two")
    record(consumer, nack_of(first, 0.0))
    assert lease_one(consumer).checkpoint == b"two"


def test_a_checkpoint_outlives_the_manager_and_its_consumer(engine, queue):
    submit(queue)
    consumer = engine.consumer()
    keep(consumer, lease_one(consumer), b"data")
    consumer.leave([])
    engine.restart()
    engine.advance(2.0)
    assert lease_one(engine.consumer()).checkpoint == b"data"


def test_a_job_shows_the_size_and_the_time_of_its_checkpoint(engine, queue):
    submit(queue)
    consumer = engine.consumer()
    keep(consumer, lease_one(consumer), b"data")
    (view,) = queue.get(["o-0"])
    assert view.checkpoint_bytes == 4
    assert view.checkpoint_at is not None


def test_only_the_job_that_left_it_gets_a_checkpoint(engine, queue):
    submit(queue, chunk(count=3))
    consumer = engine.consumer()
    keep(consumer, lease_one(consumer), b"of 0")
    consumer.leave([])
    other = engine.consumer()
    assert [lease_one(other).checkpoint for _ in range(3)] == [b"of 0", b"", b""]


def test_a_checkpoint_under_an_old_token_is_refused(engine, queue):
    submit(queue)
    consumer = engine.consumer()
    old = lease_one(consumer)
    record(consumer, c.Release(old.token, old.first))
    new = lease_one(consumer)
    keep(consumer, new, b"new")
    with pytest.raises(LeaseLost):
        keep(consumer, old, b"old")
    record(consumer, nack_of(new, 0.0))
    assert lease_one(consumer).checkpoint == b"new"


def test_a_checkpoint_that_comes_after_the_end_of_its_attempt_changes_nothing(engine, queue):
    submit(queue)
    consumer = engine.consumer()
    delivery = lease_one(consumer)
    keep(consumer, delivery, b"first")
    record(consumer, nack_of(delivery, 0.0))
    keep(consumer, delivery, b"late")
    assert lease_one(consumer).checkpoint == b"first"


def test_a_dead_job_that_is_requeued_goes_on_from_its_checkpoint(engine, queue):
    submit(queue)
    consumer = engine.consumer()
    delivery = lease_one(consumer)
    keep(consumer, delivery, b"data")
    record(consumer, nack_of(delivery, None))
    engine.restart()
    engine.client().requeue(["o-0"])
    engine.advance(2.0)
    assert lease_one(engine.consumer()).checkpoint == b"data"


def test_a_checkpoint_of_a_requeued_job_outlives_a_failure_and_a_restart(engine, queue):
    """The failure outdates the event of the requeue, so a replay meets the checkpoint of a dead job."""
    submit(queue)
    consumer = engine.consumer()
    record(consumer, nack_of(lease_one(consumer), None))
    queue.requeue(["o-0"])
    delivery = lease_one(consumer)
    keep(consumer, delivery, b"data")
    record(consumer, nack_of(delivery, 0.0))
    engine.restart()
    engine.advance(2.0)
    assert lease_one(engine.consumer()).checkpoint == b"data"


def test_a_job_that_succeeded_has_no_checkpoint_any_more(engine, queue):
    submit(queue)
    consumer = engine.consumer()
    delivery = lease_one(consumer)
    keep(consumer, delivery, b"data")
    record(consumer, ack_of(delivery))
    assert queue.get(["o-0"])[0].checkpoint_bytes == 0
    engine.restart()
    assert engine.client().get(["o-0"])[0].checkpoint_bytes == 0


def test_a_checkpoint_over_its_bound_is_refused(engine, queue):
    submit(queue)
    consumer = engine.consumer()
    delivery = lease_one(consumer)
    keep(consumer, delivery, bytes(CHECKPOINT_MAX))
    with pytest.raises(BadRequest):
        keep(consumer, delivery, bytes(CHECKPOINT_MAX + 1))


# --- jobs that a task submits ---------------------------------------------------------------------------


def test_a_job_is_submitted_under_a_token_in_force(engine, queue):
    submit(queue)
    delivery = lease_one(engine.consumer())
    queue.submit("child", [chunk()], under=delivery.token)
    assert [view.state for view in queue.get(["child-0"])] == ["ready"]


def test_under_an_old_token_nothing_is_submitted_but_a_repeat_is_answered(engine, queue):
    submit(queue)
    consumer = engine.consumer()
    delivery = lease_one(consumer)
    queue.submit("child", [chunk()], under=delivery.token)
    record(consumer, ack_of(delivery))
    assert queue.submit("child", [chunk()], under=delivery.token) == []
    with pytest.raises(LeaseLost):
        queue.submit("child", [chunk(1)], under=delivery.token)
    assert queue.get(["child-1"]) == []
