"""A job that its task has put off: later, uncharged, on every engine."""

from __future__ import annotations

from svc.domain import commands as c
from svc.domain.job import Cause
from svc.domain.lifecycle import JobState
from tests.support.asking import ERROR, lease_one, nack_of, record, states, submit


def snooze_of(delivery, retry_in: float | None) -> c.Nack:
    return c.Nack(delivery.token, delivery.first, ERROR, retry_in, Cause.INTERRUPTED, 0.5, snoozed=True)


def test_a_snoozed_job_waits_and_no_budget_is_charged(engine, queue):
    submit(queue)
    consumer = engine.consumer()
    record(consumer, snooze_of(lease_one(consumer), 60.0))
    engine.restart()

    (view,) = engine.client().get(["o-0"])

    assert (view.state, view.failures, view.crashes, view.suspicions) == ("scheduled", 0, 0, 0)
    assert view.due_at is not None
    assert [(attempt.how, attempt.cause, attempt.seconds) for attempt in view.attempts] == [
        ("snoozed", Cause.INTERRUPTED, 0.5)
    ]


def test_a_job_may_be_snoozed_any_number_of_times(engine, queue):
    submit(queue)
    consumer = engine.consumer()
    for _ in range(30):
        record(consumer, snooze_of(lease_one(consumer), 0.0))
    record(consumer, nack_of(lease_one(consumer), 0.0))

    (view,) = queue.get(["o-0"])

    assert (view.state, view.failures, view.interruptions) == ("ready", 1, 30)
    assert view.attempts[-1].number == 31


def test_the_same_snooze_again_changes_nothing(engine, queue):
    submit(queue)
    consumer = engine.consumer()
    snooze = snooze_of(lease_one(consumer), 60.0)

    record(consumer, snooze)
    record(consumer, snooze)

    assert queue.get(["o-0"])[0].interruptions == 1


def test_a_snoozed_job_can_be_cancelled(engine, queue):
    submit(queue)
    consumer = engine.consumer()
    record(consumer, snooze_of(lease_one(consumer), 60.0))

    assert queue.cancel(["o-0"]) == 1
    assert states(queue, "o-0") == [JobState.CANCELLED.word]


def test_a_snooze_for_ever_is_no_snooze_and_ends_the_job(engine, queue):
    submit(queue)
    consumer = engine.consumer()
    record(consumer, snooze_of(lease_one(consumer), None))

    (view,) = queue.get(["o-0"])

    assert (view.state, view.attempts[-1].how) == ("dead", "interrupted")
