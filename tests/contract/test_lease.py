"""Lease: order, exclusiveness, waiting, expiry, and who may."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest

from svc.domain import commands as c
from svc.domain.limits import GRANT_JOBS
from svc.domain.members import RECONNECT_GRACE
from svc.errors import BadRequest, LeaseLost
from svc.worker.requests import READ_AHEAD
from tests.support.asking import NOW, ack_of, chunk, counts, lease, lease_one, numbers, record, states, submit
from tests.support.inside import waiting_lessees

PATIENCE = timedelta(seconds=30)
#: The seconds of run time that a consumer of an earlier release reads ahead.
AHEAD = timedelta(seconds=0.004)
#: Jobs that share no lease, as each has another origin.
MORE_LEASES = 40


def test_jobs_come_first_in_first_out(engine, queue):
    submit(queue, chunk(0, 2), chunk(2, 2))
    submit(queue, origin="later")
    consumer = engine.consumer()

    got = [lease_one(consumer) for _ in range(5)]

    assert [(each.origin, each.first) for each in got] == [
        ("o", 0),
        ("o", 1),
        ("o", 2),
        ("o", 3),
        ("later", 0),
    ]


def test_the_highest_priority_comes_first(engine, queue):
    submit(queue, chunk(0), chunk(1, priority=5), chunk(2, priority=-1), chunk(3, priority=5))

    assert numbers(lease(engine.consumer(), 9)) == [1, 3, 0, 2]


def test_a_consumer_gets_only_tasks_that_it_knows_of_queues_that_it_serves(engine, queue):
    submit(queue, chunk(0, task="m:g"), chunk(1, queue="other"), chunk(2))

    assert numbers(lease(engine.consumer(), 9)) == [2]
    assert numbers(lease(engine.consumer("w-2", queues=["other", "default"]), 9)) == [1]


def test_not_more_than_the_limit_is_leased(engine, queue):
    submit(queue, chunk(0, 9))

    assert numbers(lease(engine.consumer(), 4)) == [0, 1, 2, 3]
    assert counts(queue).leased == 4


def test_a_grant_has_leases_within_their_bound_however_many_jobs_may_be_in_it(engine, queue):
    for number in range(MORE_LEASES):
        submit(queue, origin=f"o{number}")
    consumer = engine.consumer()

    assert len(lease(consumer, GRANT_JOBS)) == engine.limits.grant_leases
    assert len(lease(consumer, GRANT_JOBS)) == MORE_LEASES - engine.limits.grant_leases


def test_a_share_is_left_for_every_other_consumer(engine, queue):
    """Promise 5 (docs/architecture.md): no consumer hoards a job that another could run."""
    submit(queue, chunk(0, 9))
    first, second, third = (engine.consumer(f"w-{number}") for number in range(3))

    assert len(numbers(lease(first, 9)[:1])) == 3
    assert lease(second)
    assert lease(third)


def have_run(consumer, queue, seconds, task="m:f"):
    """Let 32 jobs of *task* run for so long each, in reports of four: enough to be trusted with 256."""
    submit(queue, chunk(0, 32, task=task), origin=task[-1])
    for _ in range(8):
        (delivery,) = lease(consumer, 4)
        record(consumer, c.Ack(delivery.token, delivery.first, [b"r"] * 4, [seconds] * 4))


def test_of_a_task_that_has_not_run_yet_one_job_is_granted_to_who_reads_ahead_a_little(engine, queue):
    submit(queue, chunk(0, 40))

    assert numbers(lease(engine.consumer(), 256, ahead=AHEAD)) == [0]


@pytest.mark.usefixtures("still")
@pytest.mark.parametrize(("seconds", "granted"), [(0.000_01, 40), (0.001, 4), (0.1, 1)])
def test_only_what_runs_in_the_time_that_reading_ahead_may_hide_is_granted(engine, queue, seconds, granted):
    """Promise 5."""
    consumer = engine.consumer()
    have_run(consumer, queue, seconds)
    submit(queue, chunk(0, 40))

    assert len(numbers(lease(consumer, 256, ahead=AHEAD))) == granted


@pytest.mark.usefixtures("still")
@pytest.mark.parametrize(
    ("backlog", "consumers", "granted"), [(50, 1, 22), (30, 1, 15), (40, 4, 5), (9, 4, 2)]
)
def test_so_much_more_is_read_ahead_as_leaves_each_other_consumer_its_share(
    engine, queue, backlog: int, consumers: int, granted: int
):
    """Promise 5: of jobs of 1 ms at most 22, of fewer half an equal share, and of very few the old 2 ms."""
    first = engine.consumer("w-0")
    have_run(first, queue, 0.001)
    others = [engine.consumer(f"w-{number}") for number in range(1, consumers)]
    submit(queue, chunk(0, backlog))

    assert len(numbers(lease(first, 256, ahead=READ_AHEAD))) == granted
    assert all(lease(each, 1) for each in others)


@pytest.mark.usefixtures("still")
@pytest.mark.parametrize(("seconds", "granted"), [(0.0053, 4), (0.0106, 2), (0.0212, 1)])
def test_a_consumers_request_has_room_for_jobs_that_take_a_little_longer_than_they_should(
    engine, queue, seconds: float, granted: int
):
    """Promise 5: four sleeps of 5 ms, two of 10 ms and one of 20 ms run in the time of one request."""
    consumer = engine.consumer()
    have_run(consumer, queue, seconds)
    submit(queue, chunk(0, 40))

    assert len(numbers(lease(consumer, 256, ahead=READ_AHEAD))) == granted


@pytest.mark.usefixtures("still")
def test_no_job_is_granted_behind_a_long_one_nor_a_long_one_behind_others(engine, queue):
    """Promise 5: the measured run time of the job's own task counts."""
    consumer = engine.consumer(tasks=["m:f", "m:g"])
    have_run(consumer, queue, 0.000_01)
    have_run(consumer, queue, 0.1, task="m:g")
    submit(queue, chunk(0, 3, priority=2), chunk(3, 2, task="m:g", priority=1), chunk(5, 9))

    granted = [numbers(lease(consumer, 256, ahead=AHEAD)) for _ in range(4)]

    assert granted == [[0, 1, 2], [3], [4], [5, 6, 7, 8, 9, 10, 11, 12, 13]]


def test_no_job_has_two_live_leases(engine, queue):
    submit(queue, chunk(0, 20))
    consumers = [engine.consumer(f"w-{number}") for number in range(4)]

    got = [number for _ in range(9) for consumer in consumers for number in numbers(lease(consumer))]

    assert sorted(got) == list(range(20))


def test_tokens_are_never_given_twice_not_even_after_a_restart(engine):
    submit(engine.client(), chunk(0, 3))
    first = lease_one(engine.consumer())
    engine.restart()
    engine.advance(2.0)
    consumer = engine.consumer()

    assert {lease_one(consumer).token, lease_one(consumer).token}.isdisjoint({first.token})


def test_an_empty_queue_gives_an_empty_grant_at_once(engine):
    turn = engine.consumer().lease(limit=1, wait=NOW)

    assert (turn.grant.deliveries, turn.grant.pill, turn.refused) == ([], 0, [])


def test_a_lease_waits_for_the_first_job(engine, queue):
    consumer, got = engine.consumer(), []
    thread = threading.Thread(target=lambda: got.extend(lease(consumer, 1, PATIENCE)))
    thread.start()
    engine.until(lambda host: waiting_lessees(host) == 1)

    submit(queue)

    thread.join(30)
    assert numbers(got) == [0]


def test_a_lease_waits_no_longer_than_asked(engine):
    consumer = engine.consumer()
    started = time.monotonic()

    assert lease(consumer, 1, timedelta(seconds=0.2)) == []

    assert 0.15 < time.monotonic() - started < 30


@pytest.mark.usefixtures("still")
def test_delayed_jobs_come_when_they_are_due(engine, queue):
    submit(queue, chunk(0, delay=5.0), chunk(1))
    consumer = engine.consumer()

    assert states(queue, "o-0") == ["scheduled"]
    assert numbers(lease(consumer, 9)) == [1]
    engine.advance(6)

    assert numbers(lease(consumer, 9)) == [0]


@pytest.mark.usefixtures("still")
def test_a_delay_goes_on_over_a_restart(engine):
    submit(engine.client(), chunk(0, delay=60.0))
    engine.restart()

    consumer = engine.consumer()
    engine.advance(30)
    assert lease(consumer) == []
    record(consumer, c.Extend())
    engine.advance(31)
    record(consumer, c.Extend())

    assert numbers(lease(consumer)) == [0]


def test_interrupt_ends_the_wait_of_another_thread_and_loses_nothing(engine, queue):
    consumer, got = engine.consumer(), []
    thread = threading.Thread(target=lambda: got.append(lease(consumer, 1, PATIENCE)))
    thread.start()
    engine.until(lambda host: waiting_lessees(host) == 1)

    consumer.interrupt()
    thread.join(30)

    assert not thread.is_alive()
    assert got == [[]]
    submit(queue)
    assert numbers(lease(consumer, 1, PATIENCE)) == [0]


def test_after_an_interrupt_no_call_waits(engine):
    consumer = engine.consumer()
    consumer.interrupt()
    started = time.monotonic()

    assert lease(consumer, 1, PATIENCE) == []

    assert time.monotonic() - started < PATIENCE.total_seconds() * 0.8


def test_an_interrupt_that_meets_a_grant_loses_no_job(engine, queue):
    """Whatever comes first: a job is either in the answer or still in the queue."""
    for number in range(10):
        consumer, got = engine.consumer(f"w-{number}"), []
        thread = threading.Thread(target=lambda: got.extend(lease(consumer, 1, PATIENCE)))  # noqa: B023
        thread.start()
        engine.until(lambda host: waiting_lessees(host) == 1)
        submit(queue, chunk(number))
        consumer.interrupt()
        thread.join(30)
        got += lease(consumer)
        assert numbers(got) == [number]
        record(consumer, ack_of(got[0]))
        consumer.close()


def test_a_client_that_is_no_consumer_gets_no_jobs(queue):
    submit(queue)

    with pytest.raises(BadRequest, match="hello"):
        lease(queue)


def test_a_supervisor_gets_no_jobs(engine, queue):
    """Nobody would see to them when it is gone."""
    submit(queue)

    with pytest.raises(BadRequest, match="hello"):
        lease(engine.supervisor())


@pytest.mark.usefixtures("still")
def test_a_worker_not_heard_of_for_a_lease_time_loses_its_jobs(engine, queue):
    submit(queue)
    engine.supervisor()
    delivery = lease_one(consumer := engine.consumer())

    engine.advance(engine.limits.lease_seconds - 1)
    assert states(queue, "o-0") == ["leased"]
    engine.advance(2)

    assert states(queue, "o-0") == ["ready"]
    with pytest.raises(LeaseLost):
        record(consumer, ack_of(delivery))
    assert queue.get(["o-0"])[0].interruptions == 1


@pytest.mark.usefixtures("still")
def test_extend_renews_the_leases_of_all_consumers_of_the_worker(engine, queue):
    submit(queue, chunk(0, 4))
    supervisor = engine.supervisor()
    for name in ("w-1", "w-2"):
        lease_one(engine.consumer(name))
    lease_one(other := engine.consumer("v-1", "v"))

    for _ in range(3):
        engine.advance(engine.limits.lease_seconds - 1)
        assert record(supervisor, c.Extend(busy=2)) == 2

    assert counts(queue).leased == 2
    with pytest.raises(LeaseLost):
        record(other, c.Ack(1, 0, [b""], [0.0]))


def test_a_worker_not_heard_of_gets_no_new_job_until_it_is(engine, queue):
    """Its lease would end before the reply arrives, again and again."""
    supervisor, consumer = engine.supervisor(), engine.consumer()
    engine.advance(engine.limits.lease_seconds + 1)
    submit(queue)

    assert lease(consumer) == []
    record(supervisor, c.Extend())

    assert numbers(lease(consumer)) == [0]


@pytest.mark.parametrize("sign", ["renewal", "consumer", "supervisor"])
def test_a_request_that_came_in_silence_is_answered_at_the_next_sign_of_life(engine, queue, sign):
    supervisor, consumer, got = engine.supervisor(), engine.consumer(), []
    engine.advance(engine.limits.lease_seconds + 1)
    submit(queue)
    thread = threading.Thread(target=lambda: got.extend(lease(consumer, 1, PATIENCE)))
    thread.start()
    engine.until(lambda host: waiting_lessees(host) == 1)

    if sign == "renewal":
        record(supervisor, c.Extend())
    else:
        engine.consumer("w-2") if sign == "consumer" else engine.supervisor()

    thread.join(30)
    assert numbers(got) == [0]


def test_extend_is_refused_to_who_is_no_worker(queue):
    with pytest.raises(BadRequest, match="hello"):
        record(queue, c.Extend())


def test_jobs_of_a_consumer_whose_whole_worker_is_gone_return_within_a_second(engine, queue):
    submit(queue)
    supervisor, consumer = engine.supervisor(), engine.consumer()
    lease_one(consumer)

    engine.cut(consumer)
    engine.advance(RECONNECT_GRACE + 0.1)
    assert states(queue, "o-0") == ["leased"]
    engine.cut(supervisor)
    engine.advance(RECONNECT_GRACE + 0.1)

    assert states(queue, "o-0") == ["ready"]
    assert queue.members() == []


def test_close_gives_back_what_a_consumer_holds_uncharged(engine, queue):
    submit(queue)
    consumer = engine.consumer()
    lease_one(consumer)

    consumer.close()
    consumer.close()

    (view,) = queue.get(["o-0"])
    assert (view.state, view.interruptions, view.crashes, view.failures) == ("ready", 0, 0, 0)
