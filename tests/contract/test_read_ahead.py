"""Jobs that a consumer asks for while it runs others: when they come, and that they wait behind none."""

from __future__ import annotations

import pytest

from svc.broker.host import QueueHost
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.job import PILL
from svc.domain.members import Member
from svc.domain.scheduling.read_ahead import LONG_TRIPS, OVERDUE_SECONDS, ROUND_TRIP_MAX
from tests.support.asking import chunk, numbers, record, submit
from tests.support.inside import waiting_behind, waiting_lessees
from tests.support.read_ahead import OPENS, RUN, TRIP, ask, asking, learn

pytestmark = pytest.mark.usefixtures("still")


def done(delivery: r.Delivery) -> c.Ack:
    """Return the ack of a job that ran as long as usual."""
    return c.Ack(delivery.token, delivery.first, [b"r"], [RUN])


def put_pill(host: QueueHost) -> None:
    """Do what `tasks.put(None)` of a plain client does."""
    pill = c.Submit("by-hand", [chunk(task=PILL)])
    host.call([pill], Member(inside=True), lambda replies: None)
    host.turn()


def test_the_next_job_comes_shortly_before_the_end_of_the_one_that_runs(engine, consumer):
    assert numbers(ask(consumer).deliveries) == [0]
    engine.advance(OPENS - 0.5)
    assert not ask(consumer).deliveries

    engine.advance(0.6)

    assert numbers(ask(consumer).deliveries) == [1]


def test_near_the_manager_the_next_jobs_come_in_time_for_a_commit_of_10_ms(engine):
    """Promise 5: a manager serves nobody while its disk syncs."""
    engine.supervisor()
    queue, consumer = engine.client(), engine.consumer()
    learn(queue, consumer, 0.025)
    submit(queue, chunk(0, 6))
    assert numbers(ask(consumer).deliveries) == [0]

    engine.advance(0.025 - 0.0125)

    assert numbers(ask(consumer).deliveries) == [1]


def test_a_request_waits_until_the_next_job_may_come(engine, consumer):
    ask(consumer)
    thread, got = asking(consumer)
    engine.until(lambda host: waiting_behind(host) == 1)
    engine.advance(OPENS - 0.5)
    engine.until(lambda host: waiting_behind(host) == 1)

    engine.advance(0.6)

    thread.join(30)
    assert numbers(got[0].deliveries) == [1]


def test_the_run_of_a_job_counts_from_the_end_of_the_one_before(engine, consumer):
    (first,) = ask(consumer).deliveries
    engine.advance(OPENS + 0.1)
    ask(consumer)
    engine.advance(0.3)
    record(consumer, done(first))

    engine.advance(OPENS - 0.5)
    assert not ask(consumer).deliveries
    engine.advance(0.6)
    assert numbers(ask(consumer).deliveries) == [2]


def test_a_grant_tells_how_long_a_job_may_hold_up_those_behind_it(consumer):
    assert ask(consumer).patience == pytest.approx(RUN + OVERDUE_SECONDS, rel=0.01)


def test_nothing_is_to_be_asked_for_behind_the_last_job_or_a_long_one(engine, consumer):
    queue, other = engine.client(), engine.consumer("w-2", tasks=["m:g"])
    learn(queue, other, LONG_TRIPS * TRIP, task="m:g")
    submit(queue, chunk(0, 2, task="m:g"), origin="long")
    assert ask(other).patience == 0.0

    for _ in range(6):
        grant = ask(consumer)
        record(consumer, done(grant.deliveries[0]))

    assert (numbers(grant.deliveries), grant.patience) == ([5], 0.0)


def test_behind_a_job_that_takes_longer_than_usual_none_is_granted(engine, consumer):
    (first,) = ask(consumer).deliveries
    engine.advance(RUN + OVERDUE_SECONDS + 0.1)
    assert not ask(consumer).deliveries

    assert numbers(ask(consumer, outcomes=(done(first),)).deliveries) == [1]


def test_what_was_read_ahead_goes_back_at_a_recall_and_nothing_follows(engine, consumer, supervisor):
    (first,) = ask(consumer).deliveries
    engine.advance(OPENS + 0.1)
    assert numbers(ask(consumer).deliveries) == [1]

    assert record(supervisor, c.Recall("w-1", first.token, first.first, first.token, unread=True)) == 1

    assert not ask(consumer).deliveries
    assert numbers(ask(engine.consumer("w-2")).deliveries) == [1]
    assert numbers(ask(consumer, outcomes=(done(first),)).deliveries) == [2]


def test_a_recall_that_overtakes_the_request_holds_for_it(engine, consumer, supervisor):
    (first,) = ask(consumer).deliveries
    record(supervisor, c.Recall("w-1", first.token, first.first, first.token, unread=True))

    engine.advance(OPENS + 0.1)

    assert not ask(consumer).deliveries


def test_a_recall_that_comes_late_leaves_alone_what_was_granted_since(engine, consumer, supervisor):
    """The consumer has given back what it had asked for, and runs the next job: that must not run twice."""
    (first,) = ask(consumer).deliveries
    (second,) = ask(consumer, outcomes=(done(first),)).deliveries

    assert record(supervisor, c.Recall("w-1", first.token, first.first, first.token, unread=True)) == 0

    assert record(consumer, done(second)) == 1


def test_an_idle_consumer_gets_a_job_before_one_that_runs(engine, consumer):
    queue, idle = engine.client(), engine.consumer("w-2")
    for _ in range(5):
        (delivery,) = ask(consumer).deliveries
        record(consumer, done(delivery))
    ask(consumer)
    engine.advance(OPENS + 0.1)
    busy, behind = asking(consumer)
    engine.until(lambda host: waiting_behind(host) == 1)
    waiting, got = asking(idle)
    engine.until(lambda host: waiting_lessees(host) == 1)

    submit(queue, chunk(6))

    waiting.join(30)
    assert numbers(got[0].deliveries) == [6]
    submit(queue, chunk(7))
    busy.join(30)
    assert numbers(behind[0].deliveries) == [7]


def test_a_pill_that_was_put_by_hand_is_for_an_idle_consumer(engine, consumer):
    engine.client().cancel([f"o-{number}" for number in range(1, 6)])
    (first,) = ask(consumer).deliveries
    engine.inside(put_pill)
    engine.advance(OPENS + 0.1)
    assert not ask(consumer).pill

    assert ask(consumer, outcomes=(done(first),)).pill == r.PILL_PUT_BY_HAND


def test_the_pill_of_a_drain_does_not_wait_for_the_end_of_a_job(engine, consumer):
    ask(consumer)
    thread, got = asking(consumer)
    engine.until(lambda host: waiting_behind(host) == 1)

    engine.client().drain()

    thread.join(30)
    assert got[0].pill > 0


def test_nothing_is_granted_behind_a_suspect(engine, consumer):
    lost = engine.consumer("lost-1", "lost")
    ask(lost)
    engine.cut(lost)
    engine.advance(0.6)
    engine.advance(3.0)
    for _ in range(5):
        (delivery,) = ask(consumer).deliveries
        record(consumer, done(delivery))
    assert numbers(ask(consumer).deliveries) == [0]
    submit(engine.client(), chunk(6))

    engine.advance(OPENS + 0.1)

    assert not ask(consumer).deliveries


def test_more_is_read_ahead_of_short_jobs_over_a_longer_link(engine, consumer):
    queue, near = engine.client(), engine.consumer("near-1", "near", tasks=["m:g"])
    learn(queue, near, 0.1, task="m:g")
    submit(queue, chunk(0, 40, task="m:g"), origin="short")

    assert len(numbers(ask(near).deliveries)) == 1
    assert len(numbers(ask(engine.consumer("w-2", tasks=["m:g"])).deliveries)) > 3


def test_no_worker_reads_ahead_for_more_than_a_bound_whatever_it_tells(engine, consumer, supervisor):
    record(supervisor, c.Extend(round_trip=1e6))
    learn(engine.client(), engine.consumer("w-2", tasks=["m:g"]), LONG_TRIPS * ROUND_TRIP_MAX, task="m:g")
    submit(engine.client(), chunk(0, 2, task="m:g"), origin="long")

    assert ask(engine.consumer("w-3", tasks=["m:g"])).patience == 0.0


def test_a_request_of_a_consumer_without_jobs_is_served_at_once(engine, queue):
    consumer = engine.consumer()
    submit(queue, chunk(0, 2))

    assert numbers(ask(consumer).deliveries) == [0]


def test_nothing_is_asked_for_behind_jobs_that_do_nothing_unless_the_link_is_long(engine, supervisor):
    queue, near = engine.client(), engine.consumer("near-1", "near")
    learn(queue, near, 0.00001)
    submit(queue, chunk(0, 40))

    assert ask(near).patience == 0.0
    assert ask(engine.consumer()).patience > 0.0
