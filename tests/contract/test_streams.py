"""Partial results of jobs, on every engine: recorded once, read in order, and never mixed."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from svc.broker.local import LocalBroker, LocalQueue
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.refusals import DISK, MEMORY
from svc.errors import BadRequest, JobTooLarge, JournalFull, LeaseLost, QueueFull, StreamTooLong, UnknownJob
from svc.telemetry.metrics import ManagerMetrics
from tests.support.asking import ack_of, chunk, lease, lease_one, nack_of, record, submit
from tests.support.engines import ENGINES, LIMITS
from tests.support.exposition import value

HELLO = c.Hello(1, "consumer", "w-1", "w", tasks=["m:f"])


def give(broker, delivery, *values: bytes, first: int = 0) -> int:
    return record(broker, c.Yield(delivery.token, delivery.first, first, list(values)))


def read(queue, job: str = "o-0", start: int = 0, token: int = 0, wait: float = 0.0) -> r.StreamPart:
    part: r.StreamPart = queue.read_stream(c.ReadStream(job, start, token, wait))
    return part


def values(queue, job: str = "o-0", start: int = 0) -> list[bytes]:
    return read(queue, job, start).values


@pytest.fixture
def running(engine, queue):
    """A consumer, and the job that it has."""
    submit(queue)
    consumer = engine.consumer()
    return consumer, lease_one(consumer)


# --- one attempt ----------------------------------------------------------------------------------------


def test_a_job_that_gives_nothing_has_an_empty_stream(queue, running):
    assert read(queue) == r.StreamPart()
    record(running[0], ack_of(running[1]))
    assert read(queue) == r.StreamPart(ended=True)


def test_partial_results_are_read_in_order_while_the_job_runs(queue, running):
    assert give(*running, b"a", b"b") == 2
    assert give(*running, b"c", first=2) == 3
    part = read(queue)
    assert (part.token, part.number, part.attempt) == (running[1].token, 1, 1)
    assert (part.first, part.values, part.ended) == (0, [b"a", b"b", b"c"], False)


@pytest.mark.parametrize(
    ("start", "found"), [(1, [b"b", b"c", b"d"]), (2, [b"c", b"d"]), (3, [b"d"]), (4, []), (9, [])]
)
def test_a_reader_may_begin_at_any_index(queue, running, start, found):
    give(*running, b"a", b"b")
    give(*running, b"c", b"d", first=2)
    assert values(queue, start=start) == found


def test_partial_results_stay_after_the_job_has_ended(engine, queue, running):
    give(*running, b"a")
    record(running[0], ack_of(running[1]))
    assert read(queue).values == [b"a"]
    assert read(queue).ended
    engine.restart()
    assert values(engine.client()) == [b"a"]


def test_the_same_partial_results_again_change_nothing(queue, running):
    give(*running, b"a", b"b")
    assert give(*running, b"a", b"b") == 2
    assert give(*running, b"b", b"c", first=1) == 3
    assert values(queue) == [b"a", b"b", b"c"]


def test_a_gap_between_partial_results_is_refused(queue, running):
    give(*running, b"a")
    with pytest.raises(BadRequest, match="1 partial results are recorded, so 2 is not next"):
        give(*running, b"c", first=2)
    assert values(queue) == [b"a"]


def test_each_job_of_a_lease_has_a_stream_of_its_own(engine, queue):
    submit(queue, chunk(count=2))
    consumer = engine.consumer()
    (delivery,) = lease(consumer, 2)
    record(consumer, c.Yield(delivery.token, 0, 0, [b"of 0"]))
    record(consumer, c.Yield(delivery.token, 1, 0, [b"of 1"]))
    assert (values(queue, "o-0"), values(queue, "o-1")) == ([b"of 0"], [b"of 1"])


def test_the_stream_of_a_job_that_is_not_known_is_refused(queue):
    with pytest.raises(UnknownJob):
        read(queue, "o-7")


# --- attempts -------------------------------------------------------------------------------------------


def test_a_partial_result_under_an_old_token_is_refused(queue, running):
    consumer, old = running
    give(consumer, old, b"a")
    record(consumer, c.Release(old.token, old.first))
    new = lease_one(consumer)
    give(consumer, new, b"new")
    with pytest.raises(LeaseLost):
        give(consumer, old, b"old", first=1)
    assert values(queue) == [b"new"]


def test_partial_results_after_the_end_of_their_attempt_change_nothing(queue, running):
    give(*running, b"a")
    record(running[0], ack_of(running[1]))
    assert give(*running, b"b", first=1) == 0
    assert values(queue) == [b"a"]


def test_the_next_attempt_begins_a_new_stream_with_its_first_partial_result(queue, running):
    consumer, first = running
    give(consumer, first, b"a", b"b")
    record(consumer, nack_of(first, retry_in=0.0))
    second = lease_one(consumer)
    assert values(queue) == [b"a", b"b"]

    give(consumer, second, b"x")

    part = read(queue, token=first.token, start=2)
    assert (part.token, part.number, part.attempt, part.values) == (second.token, 2, 2, [])
    assert values(queue) == [b"x"]


def test_a_success_without_partial_results_has_an_empty_stream_of_its_own(engine, queue, running):
    consumer, first = running
    give(consumer, first, b"a")
    record(consumer, nack_of(first, retry_in=0.0))
    second = lease_one(consumer)
    record(consumer, ack_of(second))
    expected = r.StreamPart(second.token, 2, 2, 0, [], ended=True)
    assert read(queue) == expected
    engine.restart()
    assert read(engine.client()) == expected


def test_a_job_shows_how_many_partial_results_there_are(queue, running):
    def shown():
        (view,) = queue.get(["o-0"])
        return view.partial_results, view.stream_bytes, view.stream_number

    consumer, first = running
    assert shown() == (0, 0, 0)
    give(consumer, first, b"a", b"bc")
    assert shown() == (2, 3, 1)
    record(consumer, nack_of(first, retry_in=0.0))
    record(consumer, ack_of(lease_one(consumer)))
    assert shown() == (0, 0, 2)


def test_a_job_that_failed_for_good_keeps_its_partial_results(queue, running):
    give(*running, b"a")
    record(running[0], nack_of(running[1], retry_in=None))
    assert (values(queue), read(queue).ended) == ([b"a"], True)


def test_an_attempt_that_was_lost_does_not_come_back_over_the_stream_of_the_next_one(engine, queue):
    """After one more restart nothing else tells that there was a later attempt."""
    submit(queue, chunk(count=2))
    lost = lease(engine.consumer(), 2)[0]
    engine.restart()
    engine.advance(engine.limits.reconnect_seconds + 0.1)
    later = engine.consumer("v-1", "v")
    give(later, lease_one(later), b"later")
    engine.restart()

    back = engine.consumer(held=[c.Held(lost.token, "o", 0, 2)])

    assert back.welcome.lost == [lost.token]
    with pytest.raises(LeaseLost):
        record(back, ack_of(lost))
    assert values(engine.client()) == [b"later"]


def test_a_requeued_job_that_gives_some_again_has_a_new_stream_after_a_restart_too(engine, queue, running):
    consumer, first = running
    give(consumer, first, b"a")
    record(consumer, nack_of(first, retry_in=None))
    queue.requeue(["o-0"])
    second = lease_one(consumer)
    give(consumer, second, b"x")
    record(consumer, nack_of(second, retry_in=0.0))
    engine.restart()
    part = read(engine.client())
    assert (part.token, part.number, part.values) == (second.token, 2, [b"x"])


# --- waiting --------------------------------------------------------------------------------------------


def answered_later(engine, act, **query) -> r.StreamPart:
    """Ask for partial results, do *act* once the request waits, and return the answer."""
    reader, answers = engine.client(), []
    thread = threading.Thread(target=lambda: answers.append(read(reader, wait=20.0, **query)))
    thread.start()
    engine.until(lambda host: len(host._waiters.all) == 1)
    act()
    thread.join(30)
    return answers[0]


def test_a_reader_waits_for_the_next_partial_result(engine, queue, running):
    give(*running, b"a")
    part = answered_later(engine, lambda: give(*running, b"b", first=1), start=1)
    assert (part.first, part.values) == (1, [b"b"])


def test_a_reader_waits_for_the_end(engine, queue, running):
    give(*running, b"a")
    part = answered_later(engine, lambda: record(running[0], ack_of(running[1])), start=1)
    assert (part.values, part.ended) == ([], True)


def test_a_reader_that_waits_hears_of_a_new_stream(engine, queue, running):
    consumer, first = running
    give(consumer, first, b"a")
    record(consumer, nack_of(first, retry_in=0.0))
    second = lease_one(consumer)
    part = answered_later(engine, lambda: give(consumer, second, b"x"), start=1, token=first.token)
    assert (part.token, part.number, part.values) == (second.token, 2, [])


# --- bounds ---------------------------------------------------------------------------------------------


def test_a_partial_result_over_its_bound_is_refused(queue, running):
    give(*running, bytes(LIMITS.max_job_bytes))
    with pytest.raises(JobTooLarge):
        give(*running, bytes(LIMITS.max_job_bytes + 1), first=1)


@pytest.mark.parametrize(("short", "error"), [(DISK, JournalFull), (MEMORY, QueueFull)])
def test_no_partial_result_is_kept_while_the_manager_is_short_of_something(
    engine, queue, running, short, error
):
    """Each row of a stream takes memory: 1.5 million took a manager over its limit, and its successor."""
    give(*running, b"a")
    engine.inside(lambda host: host.state.refuse(short, on=True))
    assert give(*running, b"a") == 1
    with pytest.raises(error, match="partial results"):
        give(*running, b"b", first=1)
    engine.inside(lambda host: host.state.refuse(short, on=False))
    assert give(*running, b"b", first=1) == 2


@pytest.mark.parametrize("way", ENGINES)
def test_the_number_and_the_bytes_of_a_stream_are_bounded(way, tmp_path):
    engine = ENGINES[way](tmp_path, replace(LIMITS, stream_values=3, stream_bytes=10))
    queue, consumer = engine.client(), engine.consumer()
    submit(queue)
    delivery = lease_one(consumer)
    give(consumer, delivery, b"a", b"b", b"c")
    with pytest.raises(StreamTooLong, match="3 partial results"):
        give(consumer, delivery, b"d", first=3)
    assert values(queue) == [b"a", b"b", b"c"]
    submit(queue, chunk(1))
    other = lease_one(consumer)
    give(consumer, other, bytes(9))
    with pytest.raises(StreamTooLong, match="10 bytes"):
        give(consumer, other, bytes(2), first=1)
    engine.close()


def test_the_metrics_count_what_is_new():
    metrics = ManagerMetrics()
    queue = LocalQueue(observer=metrics)
    with LocalBroker(queue) as client, LocalBroker(queue, lambda: HELLO) as consumer:
        submit(client)
        delivery = lease_one(consumer)
        give(consumer, delivery, b"a", b"bc")
        give(consumer, delivery, b"bc", b"def", first=1)
    queue.close()
    assert value(metrics, "svc_partial_results_total") == 3
    assert value(metrics, "svc_partial_result_bytes_total") == 6
