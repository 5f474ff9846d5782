"""The partial results of a job, as its client reads them."""

from __future__ import annotations

import threading

import pytest

from svc import codec
from svc.broker.local import LocalBroker
from svc.client.client import BrokerClient
from svc.domain import commands as c
from svc.domain.job import Terms
from svc.errors import (
    ArgumentError,
    JobCancelled,
    JobFailed,
    ResultTimeout,
    StreamRestarted,
    UnknownJob,
    UntrustedPickle,
)
from svc.testing import run_jobs
from tests.support import generator_tasks
from tests.support.asking import ack_of, lease_one, nack_of, record
from tests.support.pickle_keys import PICKLE_KEYS


@pytest.fixture
def attempts(queue):
    """A consumer that takes an attempt at the only job, which then gives values."""

    hello = c.Hello(1, "consumer", "w-1", "w", tasks=["m:f"])
    with LocalBroker(queue, lambda: hello) as broker:
        yield broker


def give(broker, delivery, first: int, *values: object) -> None:
    encoded = [codec.encode_result("plain", value) for value in values]
    record(broker, c.Yield(delivery.token, delivery.first, first, encoded))


@pytest.fixture
def job(client):
    return client.submit("m:f")


def test_the_values_come_in_order_and_end_with_the_job(job, attempts):
    delivery = lease_one(attempts)
    give(attempts, delivery, 0, 1, "two")
    stream = job.stream()
    assert (next(stream), next(stream)) == (1, "two")
    assert (stream.index, stream.number, stream.attempt) == (2, 1, 1)
    give(attempts, delivery, 2, None)
    record(attempts, ack_of(delivery, codec.encode_result("plain", None)))
    assert list(stream) == [None]
    assert list(job.stream()) == [1, "two", None]


def test_a_reader_begins_where_it_wants(job, attempts):
    delivery = lease_one(attempts)
    give(attempts, delivery, 0, *range(5))
    record(attempts, ack_of(delivery, codec.encode_result("plain", None)))
    assert list(job.stream(3)) == [3, 4]
    assert list(job.stream(9)) == []


def test_a_reader_waits_for_the_next_value(job, attempts):
    delivery = lease_one(attempts)
    give(attempts, delivery, 0, 1)
    stream, found = job.stream(), []
    reader = threading.Thread(target=lambda: found.extend(stream))
    reader.start()
    give(attempts, delivery, 1, 2)
    record(attempts, ack_of(delivery, codec.encode_result("plain", None)))
    reader.join(30)
    assert found == [1, 2]


def test_a_reader_of_an_attempt_before_hears_of_the_new_one(job, attempts):
    first = lease_one(attempts)
    give(attempts, first, 0, "a", "b", "c")
    stream = job.stream()
    assert next(stream) == "a"
    record(attempts, nack_of(first, retry_in=0.0))
    give(attempts, lease_one(attempts), 0, "x")
    assert [next(stream), next(stream)] == ["b", "c"], "what was read is of one attempt"
    with pytest.raises(StreamRestarted, match=f"attempt 2 at job {job.id}") as raised:
        next(stream)
    assert (raised.value.job_id, raised.value.number, raised.value.attempt) == (job.id, 2, 2)
    assert next(job.stream()) == "x"


def test_one_who_goes_on_elsewhere_names_the_stream(job, attempts):
    first = lease_one(attempts)
    give(attempts, first, 0, "a", "b")
    assert next(job.stream(1, number=1)) == "b"
    record(attempts, nack_of(first, retry_in=0.0))
    give(attempts, lease_one(attempts), 0, "x", "y")
    with pytest.raises(StreamRestarted):
        next(job.stream(1, number=1))
    assert next(job.stream(1, number=2)) == "y"


def test_a_success_without_values_is_another_stream(job, attempts):
    first = lease_one(attempts)
    give(attempts, first, 0, "a")
    stream = job.stream()
    assert next(stream) == "a"
    record(attempts, nack_of(first, retry_in=0.0))
    record(attempts, ack_of(lease_one(attempts), codec.encode_result("plain", 1)))
    with pytest.raises(StreamRestarted):
        next(stream)
    assert list(job.stream()) == []


def test_a_dead_job_raises_after_its_values(job, attempts):
    delivery = lease_one(attempts)
    give(attempts, delivery, 0, "a")
    record(attempts, nack_of(delivery))
    stream = job.stream()
    assert next(stream) == "a"
    with pytest.raises(JobFailed, match="ValueError"):
        next(stream)


def test_a_cancelled_job_raises(job):
    job.cancel()
    with pytest.raises(JobCancelled):
        list(job.stream())


def test_a_job_without_partial_results_has_an_empty_stream(job, attempts):
    record(attempts, ack_of(lease_one(attempts), codec.encode_result("plain", 1)))
    assert list(job.stream()) == []


def test_a_reader_gives_up_after_its_timeout(job):
    with pytest.raises(ResultTimeout, match=r"not ended within 0\.1 s"):
        next(job.stream(timeout=0.1))


def test_an_unknown_job_is_told(client):
    with pytest.raises(UnknownJob):
        next(client.job("abc-7").stream())


@pytest.mark.parametrize("wrong", [-1, 1.5, "1", None, 1 << 60])
def test_a_start_or_a_number_that_is_none_is_refused(job, wrong):
    with pytest.raises(ArgumentError, match="start"):
        job.stream(wrong)
    with pytest.raises(ArgumentError, match="number"):
        job.stream(number=wrong)


def test_pickled_values_are_opened_at_their_own_place_alone(queue, attempts):

    reading = BrokerClient(lambda: LocalBroker(queue), accept=["plain", "pickle"], pickle_keys=PICKLE_KEYS)
    with reading as client:
        job = client.options(codec="pickle").submit("m:f")
        delivery = lease_one(attempts)
        assert delivery.terms == Terms("m:f", codec="pickle", typed=True, large=True)
        keys = [PICKLE_KEYS.of_value(job.id, delivery.token, index) for index in (0, 0)]
        encoded = [codec.encode_result("pickle", slice(place), key) for place, key in enumerate(keys)]
        record(attempts, c.Yield(delivery.token, delivery.first, 0, encoded))
        stream = job.stream()
        assert next(stream) == slice(0)
        with pytest.raises(UntrustedPickle):
            next(stream)


def test_a_future_of_a_generator_task_has_what_it_returns(queue, executor):
    future = executor.submit(generator_tasks.count, 4)
    executor.flush(30)
    run_jobs(queue, [generator_tasks.__name__])
    assert future.result(30) == 6


def test_an_executor_of_pickles_takes_no_generator_function_as_that_of_the_standard_library(pickling, run):
    def values():
        yield 1

    future = pickling.submit(values)
    run()
    with pytest.raises(JobFailed, match="generator"):
        future.result(30)
