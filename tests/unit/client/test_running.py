"""`Future.running` asks the manager, which alone knows the jobs of a consumer."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest

from svc.broker.local import LocalBroker
from svc.client import futures
from svc.client.executor import BrokerExecutor
from svc.domain import commands as c
from svc.testing import local_client
from tests.support.asking import ack_of, lease_one, nack_of, record


@pytest.fixture
def executor(queue):
    executor = BrokerExecutor(local_client(queue), patience=30.0)
    yield executor
    executor.shutdown(wait=False, cancel_futures=True)


@pytest.fixture
def consumer(queue):
    LocalBroker(queue, lambda: c.Hello(1, "worker", "w", "w")).call([c.Ping()])
    with LocalBroker(queue, lambda: c.Hello(1, "consumer", "w-1", "w", tasks=["t:f"])) as broker:
        yield broker


@pytest.fixture
def at_once(monkeypatch):
    """Ask each time."""
    monkeypatch.setattr(futures, "RUNNING_SECONDS", 0.0)


@pytest.fixture
def future(executor, at_once):
    future = executor.submit("t:f", 1)
    executor.flush(30)
    return future


def test_it_is_true_while_a_consumer_has_the_job(future, consumer):
    assert not future.running()
    delivery = lease_one(consumer)
    assert future.running()

    record(consumer, ack_of(delivery, b"\x01"))

    assert future.result(timeout=30) == 1
    assert not future.running()


def test_a_job_that_waits_for_its_next_attempt_does_not_run(future, consumer):
    record(consumer, nack_of(lease_one(consumer), 60.0))
    assert not future.running()
    assert not future.done()


def test_a_job_that_was_given_back_does_not_run(future, consumer):
    delivery = lease_one(consumer)
    assert future.running()
    record(consumer, c.Release(delivery.token, delivery.first))
    assert not future.running()


def test_one_that_was_cancelled_or_refused_does_not_run(executor, at_once):
    waiting, refused = executor.submit("t:f"), executor.submit("t:f", object())
    executor.flush(30)
    assert waiting.cancel()
    assert not waiting.running()
    assert not refused.running()


def test_a_future_found_by_its_id_tells_too(executor, future, consumer, queue):
    lease_one(consumer)
    other = BrokerExecutor(local_client(queue))
    assert other.future(future.job_id).running()
    other.shutdown(wait=False)


def test_nothing_is_asked_before_the_job_is_sent_nor_after_it_ended():
    asked = itertools.count()
    future = futures.Future("o-0", lambda _: False, lambda _: bool(next(asked) + 1))
    assert not future.running()
    future.sent = True
    assert future.running()
    future.set_result(1)
    assert not future.running()
    assert next(asked) == 1


def test_a_caller_that_asks_all_the_time_costs_one_request_in_a_while(monkeypatch):
    asked, times = itertools.count(), iter((100.0, 100.0 + futures.RUNNING_SECONDS / 2, 101.0))
    monkeypatch.setattr(futures, "time", SimpleNamespace(monotonic=times.__next__))
    future = futures.Future("o-0", lambda _: False, lambda _: bool(next(asked) + 1))
    future.sent = True
    assert [future.running() for _ in range(3)] == [True, True, True]
    assert next(asked) == 2
