"""How attempts end: ack, nack, release, recall, lost."""

from __future__ import annotations

import pytest

from svc.domain import commands as c
from svc.domain.job import Cause
from svc.domain.lifecycle import JobState
from svc.domain.retry import CRASH_BUDGET
from svc.errors import BadRequest, LeaseLost
from tests.support.asking import (
    ERROR,
    NOW,
    ack_of,
    chunk,
    counts,
    lease,
    lease_one,
    nack_of,
    numbers,
    record,
    states,
    submit,
)


def test_an_ack_records_the_result(engine, queue):
    submit(queue)
    consumer = engine.consumer()
    record(consumer, ack_of(lease_one(consumer), b"result"))

    (outcome,) = queue.wait(["o-0"], NOW)

    assert (outcome.id, outcome.state, outcome.result) == ("o-0", JobState.SUCCEEDED, b"result")
    assert (outcome.seconds, outcome.codec, outcome.task, outcome.error) == (0.5, "plain", "m:f", None)
    assert counts(queue).succeeded == 1


def test_the_same_ack_again_changes_nothing(engine, queue):
    submit(queue)
    consumer = engine.consumer()
    ack = ack_of(lease_one(consumer), b"first")
    record(consumer, ack)

    record(consumer, c.Ack(ack.token, ack.first, [b"second"], [9.0]))

    assert queue.wait(["o-0"], NOW)[0].result == b"first"
    assert counts(queue).succeeded == 1


def test_the_same_ack_again_changes_nothing_after_a_restart_either(engine):
    submit(engine.client())
    consumer = engine.consumer()
    ack = ack_of(lease_one(consumer), b"first")
    record(consumer, ack)
    engine.restart()

    record(engine.consumer(), ack)

    assert engine.client().wait(["o-0"], NOW)[0].result == b"first"


def test_the_same_nack_again_changes_nothing_not_even_after_a_restart(engine):
    submit(engine.client(), chunk(0))
    consumer = engine.consumer()
    nack = nack_of(lease_one(consumer), retry_in=60.0)
    record(consumer, nack)
    record(consumer, nack)
    engine.restart()
    record(engine.consumer(), nack)

    assert engine.client().get(["o-0"])[0].failures == 1


def test_a_late_ack_is_refused_and_changes_nothing(engine, queue):
    submit(queue)
    stale = lease_one(engine.consumer())
    engine.advance(engine.limits.lease_seconds + 1)
    other = engine.consumer("v-1", "v")
    fresh = lease_one(other)

    with pytest.raises(LeaseLost):
        record(engine.consumer("u-1", "u"), ack_of(stale, b"stale"))
    assert states(queue, "o-0") == ["leased"]
    record(other, ack_of(fresh, b"fresh"))

    assert queue.wait(["o-0"], NOW)[0].result == b"fresh"


def test_an_ack_after_the_same_attempt_was_reported_crashed_is_refused(engine, queue):
    """One attempt has one outcome: the one that came first."""
    submit(queue)
    supervisor, consumer = engine.supervisor(), engine.consumer()
    delivery = lease_one(consumer)
    supervisor.call([c.Lost("w-1", ERROR, delivery.token, 0)])

    with pytest.raises(LeaseLost):
        record(engine.consumer("w-2"), ack_of(delivery))

    assert states(queue, "o-0") == ["ready"]


def test_results_of_several_jobs_are_acked_from_the_front(engine, queue):
    submit(queue, chunk(0, 4))
    consumer = engine.consumer()
    (delivery,) = lease(consumer, 4)

    record(consumer, c.Ack(delivery.token, 0, [b"a", b"b"], [0.1, 0.1]))
    assert states(queue, *(f"o-{n}" for n in range(4))) == ["succeeded", "succeeded", "leased", "leased"]
    record(consumer, c.Ack(delivery.token, 0, [b"x", b"x", b"c"], [0.1] * 3))
    record(consumer, c.Ack(delivery.token, 3, [b"d"], [0.1]))

    outcomes = queue.wait([f"o-{n}" for n in range(4)], NOW)
    assert [outcome.result for outcome in outcomes] == [b"a", b"b", b"c", b"d"]


def test_an_ack_whose_run_times_are_missing_or_whose_job_is_not_of_the_lease_is_refused(engine, queue):
    submit(queue, chunk(0, 2))
    consumer = engine.consumer()
    (delivery,) = lease(consumer, 2)

    with pytest.raises(BadRequest):
        record(consumer, c.Ack(delivery.token, 0, [b"r"], []))
    with pytest.raises(BadRequest):
        record(consumer, c.Ack(delivery.token, 2, [b"r"], [0.1]))

    assert counts(queue).leased == 2


def test_jobs_whose_results_an_ack_leaves_out_run_again(engine, queue):
    """Reports come in order, so theirs were lost, and nobody would report them any more."""
    submit(queue, chunk(0, 4))
    consumer = engine.consumer()
    (delivery,) = lease(consumer, 4)

    record(consumer, c.Ack(delivery.token, 2, [b"r"], [0.1]))

    assert states(queue, "o-0", "o-1", "o-2", "o-3") == ["ready", "ready", "succeeded", "leased"]
    with pytest.raises(LeaseLost):
        record(consumer, c.Ack(delivery.token, 0, [b"late"], [0.1]))
    other = engine.consumer("w-2")
    assert [lease_one(other).first for _ in range(2)] == [0, 1]
    assert [view.crashes + view.failures for view in queue.get(["o-0", "o-1"])] == [0, 0]


def test_outcomes_travel_with_the_next_lease(engine, queue):
    submit(queue, chunk(0, 2))
    consumer = engine.consumer()
    first = lease_one(consumer)

    turn = consumer.lease(limit=1, wait=NOW, outcomes=[ack_of(first), c.Ack(1, 0, [b""], [0.0])])

    assert numbers(turn.grant.deliveries) == [1]
    assert [refused.code for refused in turn.refused] == ["lease_lost"]
    assert states(queue, "o-0") == ["succeeded"]


@pytest.mark.usefixtures("still")
def test_a_nack_with_a_time_tries_the_job_again_then(engine, queue):
    submit(queue)
    consumer = engine.consumer()
    record(consumer, nack_of(lease_one(consumer), retry_in=5.0))

    assert states(queue, "o-0") == ["scheduled"]
    assert lease(consumer) == []
    engine.advance(6)

    delivery = lease_one(consumer)
    assert (delivery.first, delivery.failures) == (0, 1)


def test_a_nack_without_a_time_makes_a_dead_letter_with_its_history(engine, queue):
    submit(queue)
    consumer = engine.consumer()
    record(consumer, nack_of(lease_one(consumer), retry_in=0.0))
    record(consumer, nack_of(lease_one(consumer)))

    (outcome,) = queue.wait(["o-0"], NOW)
    (view,) = queue.get(["o-0"])

    assert (outcome.state, outcome.error) == (JobState.DEAD, ERROR)
    assert (view.state, view.failures, len(view.attempts)) == ("dead", 2, 2)
    assert view.attempts[0].error == ERROR
    assert view.attempts[0].consumer == "w-1"


def test_a_nack_gives_back_the_jobs_before_it_whose_results_never_came(engine, queue):
    submit(queue, chunk(0, 3))
    consumer = engine.consumer()
    (delivery,) = lease(consumer, 3)

    record(consumer, c.Nack(delivery.token, 1, ERROR))

    assert states(queue, "o-0", "o-1", "o-2") == ["ready", "dead", "leased"]
    with pytest.raises(LeaseLost):
        record(consumer, c.Ack(delivery.token, 0, [b"late"], [0.0]))


@pytest.mark.parametrize(
    ("cause", "charge"),
    [
        (Cause.FAILED, "failures"),
        (Cause.TIMED_OUT, "failures"),
        (Cause.REFUSED, "failures"),
        (Cause.CRASHED, "crashes"),
        (Cause.INTERRUPTED, "interruptions"),
    ],
)
def test_each_cause_has_its_charge(engine, queue, cause, charge):
    submit(queue)
    consumer = engine.consumer()
    record(consumer, c.Nack(lease_one(consumer).token, 0, ERROR, 0.0, cause))

    (view,) = queue.get(["o-0"])

    charged = {name: getattr(view, name) for name in ("failures", "crashes", "interruptions")}
    assert charged == {"failures": 0, "crashes": 0, "interruptions": 0, charge: 1}


def test_release_gives_jobs_back_uncharged_at_their_old_place(engine, queue):
    submit(queue, chunk(0, 4))
    consumer = engine.consumer()
    (delivery,) = lease(consumer, 3)

    record(consumer, c.Release(delivery.token, 1))

    assert states(queue, "o-0", "o-1", "o-2") == ["leased", "ready", "ready"]
    assert numbers(lease(consumer, 9)) == [1, 2, 3]
    assert queue.get(["o-1"])[0].interruptions == 0


def test_release_of_a_started_job_counts_as_an_interruption_of_that_one_alone(engine, queue):
    submit(queue, chunk(0, 2))
    consumer = engine.consumer()
    (delivery,) = lease(consumer, 2)

    record(consumer, c.Release(delivery.token, 0, started=True))

    assert [view.interruptions for view in queue.get(["o-0", "o-1"])] == [1, 0]


def test_release_of_a_lost_lease_says_so(engine):
    with pytest.raises(LeaseLost):
        record(engine.consumer(), c.Release(1, 0))


def test_recall_takes_back_what_was_read_ahead_at_its_old_place(engine, queue):
    submit(queue, chunk(0, 3), chunk(4, 2), chunk(7))
    supervisor, consumer = engine.supervisor(), engine.consumer()
    first, second = lease(consumer, 5)

    (reply,) = supervisor.call([c.Recall("w-1", first.token, 0, second.token)])

    assert reply.count == 4
    assert states(queue, *(f"o-{n}" for n in (0, 1, 2, 4, 5, 7))) == ["leased"] + ["ready"] * 5
    record(consumer, c.Ack(first.token, 0, [b"r"], [0.1]))
    with pytest.raises(LeaseLost):
        record(consumer, c.Ack(first.token, 1, [b"r"], [0.1]))
    assert numbers(lease(engine.consumer("w-2"), 9))[:1] == [1]
    assert all(view.interruptions == 0 for view in queue.get([f"o-{n}" for n in range(8)]))


def test_recall_leaves_what_was_leased_since_alone(engine, queue):
    submit(queue, chunk(0, 2), chunk(2))
    supervisor, consumer = engine.supervisor(), engine.consumer()
    (first,) = lease(consumer, 2)
    later = lease_one(consumer)

    supervisor.call([c.Recall("w-1", first.token, 0, first.token)])

    assert states(queue, "o-0", "o-1", "o-2") == ["leased", "ready", "leased"]
    record(consumer, ack_of(later))


def test_a_lost_consumer_costs_only_the_job_that_was_executing(engine, queue):
    submit(queue, chunk(0, 3))
    supervisor, consumer = engine.supervisor(), engine.consumer()
    (delivery,) = lease(consumer, 3)
    record(consumer, c.Ack(delivery.token, 0, [b"r"], [0.1]))

    supervisor.call([c.Lost("w-1", ERROR, delivery.token, 1)])

    views = queue.get(["o-0", "o-1", "o-2"])
    assert [(view.state, view.crashes, view.interruptions) for view in views] == [
        ("succeeded", 0, 0), ("ready", 1, 0), ("ready", 0, 0),
    ]  # fmt: skip


def test_a_job_whose_process_dies_again_and_again_is_given_up(engine, queue):
    submit(queue)
    supervisor = engine.supervisor()
    for attempt in range(CRASH_BUDGET):
        delivery = lease_one(engine.consumer(f"w-{attempt}"))
        supervisor.call([c.Lost(f"w-{attempt}", ERROR, delivery.token, 0)])

    (view,) = queue.get(["o-0"])

    assert (view.state, view.crashes, view.failures) == ("dead", CRASH_BUDGET, 0)
    assert {attempt.cause for attempt in view.attempts} == {Cause.CRASHED}


def test_a_consumer_reported_lost_is_handed_no_job_though_its_connection_is_still_open(engine, queue):
    """Such a job would be stuck for good: neither its connection's end nor its worker's would return it."""
    supervisor, consumer = engine.supervisor(), engine.consumer()
    supervisor.call([c.Lost("w-1", ERROR)])
    submit(queue)

    with pytest.raises(BadRequest):
        lease(consumer)

    assert states(queue, "o-0") == ["ready"]


@pytest.mark.parametrize(
    ("causes", "attempts"),
    [
        ([Cause.REFUSED], 1),
        ([Cause.FAILED, Cause.FAILED], 2),
        ([Cause.FAILED, Cause.TIMED_OUT, Cause.FAILED], 3),
        ([Cause.INTERRUPTED, Cause.FAILED, Cause.INTERRUPTED, Cause.REFUSED], 4),
    ],
)
def test_the_outcome_of_a_dead_job_counts_its_attempts(engine, queue, causes, attempts):
    submit(queue)
    consumer = engine.consumer()
    for cause in causes:
        delivery = lease_one(consumer)
        last = cause is causes[-1] and len(queue.get(["o-0"])[0].attempts) == attempts - 1
        record(consumer, c.Nack(delivery.token, 0, ERROR, None if last else 0.0, cause))

    (outcome,) = queue.wait(["o-0"], NOW)

    assert outcome.attempts == attempts
