"""Jobs for a consumer that runs many of one task at once: each under a lease of its own."""

from __future__ import annotations

import threading
from datetime import timedelta

from svc.broker.base import Broker, Leased
from svc.domain import commands as c
from svc.domain.job import ErrorInfo
from tests.support.asking import ack_of, chunk, lease_one, numbers, record, submit
from tests.support.inside import waiting_lessees

PATIENCE = timedelta(seconds=30)


def beside(consumer: Broker, limit: int = 10, wait: timedelta = timedelta(0), outcomes=()) -> Leased:
    return consumer.lease(limit=limit, wait=wait, outcomes=outcomes, beside="m:f")


def test_each_job_has_a_lease_of_its_own_and_ends_in_any_order(engine, queue):
    submit(queue, chunk(0, 5))
    consumer = engine.consumer()

    got = beside(consumer, 4).grant.deliveries

    assert [(each.first, len(each.bodies)) for each in got] == [(0, 1), (1, 1), (2, 1), (3, 1)]
    for delivery in reversed(got):
        record(consumer, ack_of(delivery))
    assert numbers(beside(consumer).grant.deliveries) == [4]


def test_a_job_of_another_task_that_is_first_in_turn_ends_the_wait_with_no_job(engine, queue):
    submit(queue, chunk(0), chunk(1, task="m:g", priority=5))
    consumer = engine.consumer(tasks=["m:f", "m:g"])

    assert not beside(consumer, wait=PATIENCE).grant.deliveries
    assert lease_one(consumer).terms.task == "m:g"
    assert numbers(beside(consumer).grant.deliveries) == [0]


def test_only_the_jobs_before_one_of_another_task_are_granted(engine, queue):
    submit(queue, chunk(0, 2), chunk(2, task="m:g"), chunk(3))
    consumer = engine.consumer(tasks=["m:f", "m:g"])

    assert 2 not in numbers(beside(consumer).grant.deliveries)


def test_other_idle_consumers_get_their_share(engine, queue):
    consumer, other = engine.consumer("w/1"), engine.consumer("w/2")
    submit(queue, chunk(0, 8))

    assert numbers(beside(consumer, 8).grant.deliveries) == [0, 1, 2, 3]
    assert numbers(beside(other, 4).grant.deliveries)[0] == 4


def test_a_request_waits_for_the_next_job(engine, queue):
    consumer = engine.consumer()
    got: list[Leased] = []
    thread = threading.Thread(target=lambda: got.append(beside(consumer, wait=PATIENCE)))
    thread.start()
    engine.until(lambda host: waiting_lessees(host) == 1)
    submit(queue, chunk(0))
    thread.join()

    assert numbers(got[0].grant.deliveries) == [0]


def test_a_wake_ends_one_wait(engine, queue):
    consumer = engine.consumer()
    consumer.wake()

    assert not beside(consumer, wait=PATIENCE).grant.deliveries
    submit(queue, chunk(0))
    assert numbers(beside(consumer, wait=PATIENCE).grant.deliveries) == [0]


def test_a_suspect_that_is_first_in_turn_ends_the_wait_with_no_job(engine, queue):
    submit(queue, chunk(0))
    supervisor, consumer, lost = engine.supervisor(), engine.consumer("w-1"), engine.consumer("w-2")
    held = beside(lost, 1).grant.deliveries
    supervisor.report([c.Lost("w-2", ErrorInfo("ConsumerDied", "it died"), suspect=True)])
    submit(queue, chunk(1))

    assert numbers(held) == [0]
    assert not beside(consumer, wait=PATIENCE).grant.deliveries
    assert numbers([lease_one(consumer)]) == [0]
    assert not beside(consumer).grant.deliveries
