"""Commands about jobs: cancel, requeue, get, find, wait, feed, stats."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest

from svc.domain import commands as c
from svc.domain.job import NewChunk
from svc.domain.lifecycle import JobState
from svc.domain.retry import CRASH_BUDGET
from svc.errors import BadRequest, UnknownJob
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


def test_cancel_ends_waiting_jobs_and_leaves_all_others_alone(engine, queue):
    submit(queue, chunk(0, 3), chunk(3, delay=60.0))
    consumer = engine.consumer()
    record(consumer, ack_of(lease_one(consumer)))
    lease_one(consumer)

    assert queue.cancel([f"o-{number}" for number in range(4)]) == 2

    assert states(queue, *(f"o-{n}" for n in range(4))) == ["succeeded", "leased", "cancelled", "cancelled"]
    assert queue.cancel(["o-2"]) == 0
    assert lease(consumer, 9) == []


def test_a_cancelled_job_has_an_outcome(queue):
    submit(queue)
    queue.cancel(["o-0"])

    (outcome,) = queue.wait(["o-0"], NOW)

    assert (outcome.id, outcome.state) == ("o-0", JobState.CANCELLED)


def test_jobs_around_a_cancelled_one_are_handed_out_once_each(engine, queue):
    submit(queue, chunk(0, 5))
    queue.cancel(["o-2", "o-0"])
    consumer = engine.consumer()

    assert numbers(lease(consumer, 9)) == [1, 3, 4]
    assert counts(queue).leased == 3


@pytest.mark.parametrize("ids", [["o-0", "o-9"], ["nonsense"], ["o-0", "p-0"]])
def test_an_unknown_id_is_an_error_and_nothing_is_changed(queue, ids):
    submit(queue)

    for verb in (queue.cancel, queue.requeue, lambda ids: queue.wait(ids, NOW)):
        with pytest.raises(UnknownJob):
            verb(ids)

    assert states(queue, "o-0") == ["ready"]


def test_requeue_makes_a_dead_job_ready_with_fresh_budgets(engine, queue):
    submit(queue)
    supervisor = engine.supervisor()
    for attempt in range(CRASH_BUDGET):
        token = lease_one(engine.consumer(f"w-{attempt}")).token
        supervisor.call([c.Lost(f"w-{attempt}", ERROR, token, 0)])
    assert states(queue, "o-0") == ["dead"]

    assert queue.requeue(["o-0"]) == 1
    assert queue.requeue(["o-0"]) == 0

    delivery = lease_one(engine.consumer("w-9"))
    assert (delivery.failures, delivery.crashes) == (0, 0)
    assert len(queue.get(["o-0"])[0].attempts) == CRASH_BUDGET


def test_requeue_without_ids_takes_all_dead_jobs_of_a_queue_or_of_all(engine, queue):
    submit(queue, chunk(0, 2), chunk(2, queue="other"))
    consumer = engine.consumer(queues=["default", "other"])
    for _ in range(3):
        record(consumer, nack_of(lease_one(consumer)))

    assert queue.requeue(queue="other") == 1
    assert queue.requeue() == 2
    assert len(numbers(lease(consumer, 9))) == 3


def test_a_requeued_job_has_the_outcome_of_its_last_life(engine):
    queue, consumer = engine.client(), engine.consumer()
    submit(queue)
    record(consumer, nack_of(lease_one(consumer)))
    queue.requeue()
    assert queue.wait(["o-0"], NOW) == []
    record(consumer, ack_of(lease_one(consumer), b"second life"))
    engine.restart()

    (outcome,) = engine.client().wait(["o-0"], NOW)

    assert (outcome.state, outcome.result) == (JobState.SUCCEEDED, b"second life")


def test_get_describes_what_is_known_and_leaves_out_the_rest(queue):
    submit(queue, chunk(0, priority=2, timeout=1.5, retries=4, key="k"))

    (view,) = queue.get(["o-9", "o-0", "nonsense"])

    assert (view.id, view.task, view.queue, view.state, view.priority) == (
        "o-0",
        "m:f",
        "default",
        "ready",
        2,
    )
    assert (view.timeout, view.retries, view.key, view.codec) == (1.5, 4, "k", "plain")


def test_get_names_the_consumer_of_a_running_job(engine, queue):
    submit(queue)
    lease_one(engine.consumer("w-7"))

    assert queue.get(["o-0"])[0].consumer == "w-7"


def test_find_gives_the_newest_first_of_what_is_asked_for(engine, queue):
    submit(queue, chunk(0, 2), chunk(2, queue="other"), chunk(3, task="m:g"))
    queue.cancel(["o-0"])

    def found(**query):
        return [view.id for view in queue.find(c.List(**query))]

    assert found() == ["o-3", "o-2", "o-1", "o-0"]
    assert found(limit=2) == ["o-3", "o-2"]
    assert found(state="cancelled") == ["o-0"]
    assert found(queue="other") == ["o-2"]
    assert found(task="m:f", state="ready", queue="default") == ["o-1"]


def test_find_refuses_a_state_that_does_not_exist(queue):
    with pytest.raises(BadRequest, match="lost"):
        queue.find(c.List(state="lost"))


def test_wait_returns_once_all_have_ended(engine, queue):
    submit(queue, chunk(0, 2))
    consumer, got = engine.consumer(), []
    thread = threading.Thread(target=lambda: got.extend(queue.wait(["o-0", "o-1"], timedelta(seconds=30))))
    thread.start()
    record(consumer, ack_of(lease_one(consumer)))
    delivery = lease_one(consumer)
    assert thread.is_alive()
    record(consumer, ack_of(delivery))
    thread.join(30)

    assert [outcome.id for outcome in got] == ["o-0", "o-1"]


def test_wait_returns_what_there_is_when_time_is_up(engine, queue):
    submit(queue, chunk(0, 2))
    consumer = engine.consumer()
    record(consumer, ack_of(lease_one(consumer)))
    started = time.monotonic()

    outcomes = queue.wait(["o-0", "o-1"], timedelta(seconds=0.2))

    assert [outcome.id for outcome in outcomes] == ["o-0"]
    assert 0.15 < time.monotonic() - started < 30


def test_more_ids_than_one_answer_describes_are_refused_not_cut_off(queue):
    """A silent cut would let `wait` report that all have ended."""
    ids = ["o-0"] * 10_001

    with pytest.raises(BadRequest, match="10000"):
        queue.wait(ids, NOW)
    with pytest.raises(BadRequest, match="10000"):
        queue.get(ids)


def _finish_five(engine, queue):
    """End jobs 0 … 4: 0, 1 and 4 succeed, 2 is dead, 3 is cancelled."""
    submit(queue, chunk(0, 5))
    consumer = engine.consumer()
    (delivery,) = lease(consumer, 3)
    ack = c.Ack(delivery.token, 0, [b"a", b"b"], [0.0, 0.0])
    consumer.call([ack, c.Nack(delivery.token, 2, ERROR)])
    queue.cancel(["o-3"])
    record(consumer, ack_of(lease_one(consumer), b"e"))


EXPECTED = [
    ("o-0", JobState.SUCCEEDED),
    ("o-1", JobState.SUCCEEDED),
    ("o-2", JobState.DEAD),
    ("o-3", JobState.CANCELLED),
    ("o-4", JobState.SUCCEEDED),
]


@pytest.mark.parametrize("origin", ["o", ""])
@pytest.mark.parametrize("restarted", [False, True])
def test_feed_gives_each_outcome_once_in_the_order_recorded(engine, origin, restarted):
    _finish_five(engine, engine.client())
    if restarted:
        engine.restart()
    queue, cursor, seen = engine.client(), 0, []

    while page := queue.feed(c.Feed(origin, cursor, limit=1)).outcomes:
        cursor = queue.feed(c.Feed(origin, cursor, limit=1)).cursor
        seen += [(outcome.id, outcome.state) for outcome in page]

    assert seen == EXPECTED


@pytest.mark.parametrize("origin", ["o", ""])
def test_a_cursor_is_good_after_a_restart(engine, origin):
    _finish_five(engine, engine.client())
    page = engine.client().feed(c.Feed(origin, 0, limit=3))
    engine.restart()

    rest = engine.client().feed(c.Feed(origin, page.cursor))

    assert [(each.id, each.state) for each in [*page.outcomes, *rest.outcomes]] == EXPECTED


def test_outcomes_of_one_commit_are_fed_once(engine):
    """An ack, a dead letter and another ack in one turn: their events are in that order."""
    queue, consumer = engine.client(), engine.consumer()
    submit(queue, chunk(0, 3))
    first, second, third = (lease_one(consumer) for _ in range(3))
    consumer.call([ack_of(first), nack_of(second), ack_of(third)])

    seen = [outcome.id for outcome in queue.feed(c.Feed()).outcomes]

    assert seen == ["o-0", "o-1", "o-2"]
    assert queue.feed(c.Feed(cursor=queue.feed(c.Feed()).cursor)).outcomes == []


def test_a_feed_waits_for_the_next_outcome(engine, queue):
    submit(queue)
    got = []
    thread = threading.Thread(target=lambda: got.extend(queue.feed(c.Feed("o", wait=30.0)).outcomes))
    thread.start()
    consumer = engine.consumer()
    record(consumer, ack_of(lease_one(consumer)))
    thread.join(30)

    assert [outcome.id for outcome in got] == ["o-0"]


def test_stats_add_up(engine, queue):
    _finish_five(engine, queue)
    submit(queue, chunk(5, 4), chunk(9, delay=60.0))
    lease(engine.consumer("w-2"), 2)

    found = counts(queue)

    parts = (found.ready, found.scheduled, found.leased, found.succeeded, found.dead, found.cancelled)
    assert parts == (2, 1, 2, 3, 1, 1)
    assert found.submitted == sum(parts)


def test_stats_are_the_same_after_a_restart_but_that_leases_are_ready(engine):
    queue = engine.client()
    _finish_five(engine, queue)
    submit(queue, chunk(5, 4), chunk(9, delay=60.0))
    before = counts(queue)
    engine.restart()

    after = counts(engine.client())

    assert (after.submitted, after.ready, after.scheduled) == (before.submitted, 4, 1)
    assert (after.succeeded, after.dead, after.cancelled) == (3, 1, 1)


def test_finished_jobs_are_forgotten_after_their_retention_and_never_run_again(engine):
    queue, consumer = engine.client(), engine.consumer()
    submit(queue, chunk(0, 2))
    consumer.call([ack_of(lease_one(consumer)), nack_of(lease_one(consumer))])
    submit(queue, chunk(2))
    record(consumer, ack_of(lease_one(consumer)))

    engine.advance(engine.limits.retention_seconds + 1)
    assert states(queue, "o-0", "o-1", "o-2") == ["succeeded", "dead"], "kept for the dead one's sake"
    engine.advance(engine.limits.dead_retention_seconds + 1)
    assert states(queue, "o-0", "o-1", "o-2") == []
    assert counts(queue).submitted == 3

    submit(queue, chunk(0, 2))
    assert counts(queue).ready == 0


def test_forgotten_jobs_are_not_run_again_after_a_restart_either(engine):
    queue, consumer = engine.client(), engine.consumer()
    submit(queue, chunk(0), chunk(2))
    record(consumer, ack_of(lease_one(consumer)))
    engine.advance(engine.limits.retention_seconds + 1)
    assert states(queue, "o-0", "o-2") == ["ready"]
    engine.restart()
    queue = engine.client()

    submit(queue, chunk(0))

    assert counts(queue).ready == 1


def test_jobs_submitted_one_by_one_are_the_same_when_they_have_waited_for_long(engine):
    queue = engine.client()
    for number in range(3):
        submit(queue, chunk(number))
        queue.submit("other", [NewChunk(number, chunk().terms, [b"other"])])
    engine.advance(engine.limits.merge_seconds + 1)
    counts(queue)
    engine.restart()
    engine.advance(engine.limits.reconnect_seconds + 1)

    deliveries = lease(engine.consumer(), 6)

    names = [(each.origin, each.first + index) for each in deliveries for index in range(len(each.bodies))]
    assert sorted(names) == [(origin, number) for origin in ("o", "other") for number in range(3)]
    assert names[:2] == [("o", 0), ("other", 0)]
