"""Jobs that one consumer has read ahead and another one, which is idle, could run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest

from svc.broker.base import Broker
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.scheduling.read_ahead import HASTE_MAX, IDLE_SECONDS, LOOK_SECONDS, LOOK_SECONDS_MAX, TOLD_MAX
from tests.support.asking import chunk, numbers, record, submit
from tests.support.engines import Engine
from tests.support.inside import waiting_lessees, waiting_renewals
from tests.support.read_ahead import OPENS, RUN, TRIP, ask, asking

pytestmark = pytest.mark.usefixtures("still")


def told(supervisor: Broker, wait: float = 0.0, *, takes_back: bool = True) -> list[r.TakeBack]:
    """Renew the leases of a worker; return the orders to take jobs back."""
    renewal = c.Extend(round_trip=TRIP, told=True, wait=wait, takes_back=takes_back)
    (reply,) = supervisor.report([renewal], timedelta(seconds=wait))
    assert isinstance(reply, r.Extended)
    return reply.take_back


@pytest.fixture
def last(engine: Engine, consumer: Broker, supervisor: Broker) -> r.Delivery:
    """The last job of all, which the consumer has read ahead behind one that runs."""
    told(supervisor)
    engine.client().cancel([f"o-{number}" for number in range(2, 6)])
    ask(consumer)
    engine.advance(OPENS + 0.1)
    (delivery,) = ask(consumer).deliveries
    return delivery


@pytest.fixture
def idle(engine: Engine) -> Iterator[Callable[..., tuple[threading.Thread, list[r.Grant]]]]:
    """Let another consumer ask, until it has waited for longer than most do."""
    asked: list[tuple[Broker, threading.Thread]] = []

    def begin(**hello: Any) -> tuple[threading.Thread, list[r.Grant]]:
        other = engine.consumer("w-2", **hello)
        thread, got = asking(other)
        asked.append((other, thread))
        engine.until(lambda host: waiting_lessees(host) == 1)
        engine.advance(IDLE_SECONDS + 0.001)
        return thread, got

    yield begin
    for other, thread in asked:
        other.interrupt()
        thread.join(30)


def test_jobs_behind_a_running_one_are_taken_back_for_an_idle_consumer(engine, idle, last, supervisor):
    thread, got = idle()
    (order,) = told(supervisor)
    assert (order.consumer, order.last) == ("w-1", last.token)

    assert record(supervisor, c.Recall("w-1", last.token - 1, 0, last.token - 1, unread=True)) == 1

    thread.join(30)
    assert numbers(got[0].deliveries) == [1]


def test_the_renewal_that_waits_is_answered_with_the_order(engine, idle, last, supervisor):
    got: list[list[r.TakeBack]] = []
    renewal = threading.Thread(target=lambda: got.append(told(supervisor, 60.0)))
    renewal.start()
    engine.until(waiting_renewals)

    idle()

    renewal.join(30)
    assert [order.last for order in got[0]] == [last.token]


def test_a_renewal_does_not_wait_while_there_is_an_order_and_an_order_comes_once(
    engine, idle, last, supervisor
):
    idle()

    assert told(supervisor, 60.0)
    assert not told(supervisor)


def test_a_worker_that_does_not_know_such_orders_gets_none(engine, idle, last, supervisor):
    told(supervisor, takes_back=False)

    idle()

    assert not told(supervisor, takes_back=False)


@pytest.mark.parametrize("hello", [{"tasks": ["m:g"]}, {"queues": ["mail"]}])
def test_nothing_is_taken_back_for_a_consumer_that_does_not_take_such_jobs(
    engine, idle, last, supervisor, hello
):
    idle(**hello)

    assert not told(supervisor)


def test_nothing_is_taken_back_for_a_consumer_that_gets_a_job_in_time(engine, last, supervisor):
    thread, _ = asking(engine.consumer("w-2"))
    engine.until(lambda host: waiting_lessees(host) == 1)
    submit(engine.client(), chunk(7))
    thread.join(30)

    engine.advance(IDLE_SECONDS + 0.001)

    assert not told(supervisor)


def test_nothing_is_taken_back_from_a_consumer_that_holds_only_the_job_that_runs(
    engine, idle, consumer, supervisor
):
    told(supervisor)
    engine.client().cancel([f"o-{number}" for number in range(1, 6)])
    ask(consumer)

    idle()

    assert not told(supervisor)


def test_a_lease_gets_one_order_until_as_much_time_has_passed_again(engine, idle, last, supervisor):
    idle()
    assert told(supervisor)
    engine.advance(OPENS - 0.5)
    assert not told(supervisor)

    engine.advance(0.7)
    engine.advance(LOOK_SECONDS_MAX)

    assert told(supervisor)


def test_a_job_that_should_begin_before_the_next_look_is_left_alone_until_that(
    engine, idle, last, supervisor
):
    engine.advance(RUN - OPENS - 0.1 - 0.006)
    idle()
    assert not told(supervisor)

    engine.advance(LOOK_SECONDS + 0.001)

    assert [order.last for order in told(supervisor)] == [last.token]


def test_an_order_tells_how_long_a_job_should_take(engine, idle, last, supervisor):
    engine.advance(RUN - OPENS)
    idle()

    (order,) = told(supervisor)

    assert (order.seconds, order.wait) == (TOLD_MAX, HASTE_MAX)


def test_jobs_that_would_last_for_longer_than_a_round_trip_are_taken_back_at_once(
    engine, idle, last, supervisor
):
    idle()

    (order,) = told(supervisor)

    assert (order.seconds, order.wait) == (0.0, HASTE_MAX)
