"""Requests that a broker sends without waiting for their replies."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from svc.broker.manager import ManagerBroker
from svc.domain import commands as c
from svc.domain import replies as r
from svc.errors import ManagerUnreachable
from svc.wire import PROTOCOL_VERSION, Stream
from tests.support.asking import ack_of, chunk, submit
from tests.support.manager import RunningManager, running_manager

SECONDS = 30.0
_NOW = timedelta(0)


@pytest.fixture
def manager() -> Iterator[RunningManager]:
    with running_manager() as manager:
        yield manager


@pytest.fixture
def consumer(manager: RunningManager) -> Iterator[ManagerBroker]:
    broker = manager.consumer()
    yield broker
    broker._discard()


@pytest.fixture
def client(manager: RunningManager) -> Iterator[ManagerBroker]:
    broker = manager.broker()
    yield broker
    broker.close()


def lease(wait: float) -> c.Lease:
    return c.Lease(1, wait, running=True)


def test_the_replies_to_a_sent_request_are_there_later(consumer):
    number = consumer.send([c.Ping(), c.Ping()])

    assert consumer.receive([number], SECONDS) == (number, [r.Done(), r.Done()])


def test_without_a_wait_there_is_nothing_before_the_replies(manager, client, consumer):
    number = consumer.send([lease(SECONDS)], wait=SECONDS)
    manager.until(lambda: manager.waiting() == 1)
    assert consumer.receive([number], 0.0) is None

    submit(client, chunk())

    found = consumer.receive([number], SECONDS)
    assert found is not None
    assert found[1][0].deliveries


def test_a_call_meanwhile_keeps_the_replies_to_what_was_sent(consumer):
    number = consumer.send([c.Ping()])

    consumer.ping()

    assert consumer.receive([number], 0.0) == (number, [r.Done()])


def test_a_newer_request_for_jobs_ends_the_wait_of_the_one_before(consumer):
    first = consumer.send([lease(SECONDS)], wait=SECONDS)
    second = consumer.send([lease(SECONDS)], wait=SECONDS)

    assert consumer.receive([first, second], SECONDS) == (first, [r.Grant()])
    assert consumer.receive([second], 0.0) is None


def test_requests_are_lost_with_the_connection(manager, consumer):
    number = consumer.send([lease(SECONDS)], wait=SECONDS)
    manager.until(lambda: manager.waiting() == 1)

    manager.server.stop()

    with pytest.raises(ManagerUnreachable, match="has ended"):
        consumer.receive([number], SECONDS)
    assert consumer.send([c.Ping()]) == 0


def test_replies_that_a_new_connection_has_overtaken_are_lost(manager, consumer):
    number = consumer.send([c.Ping()])
    consumer._discard()
    consumer.ping()

    with pytest.raises(ManagerUnreachable, match="has ended"):
        consumer.receive([number], 0.0)


def test_a_manager_that_does_not_answer_in_time_is_left(consumer):
    number = consumer.send([lease(SECONDS)], wait=SECONDS)
    started = time.monotonic()

    with pytest.raises(ManagerUnreachable, match="has not answered in time"):
        consumer.receive([number], 0.05)

    assert time.monotonic() - started < SECONDS / 2


def test_reports_beside_two_early_grants_of_one_turn_are_both_repeated(manager, client, consumer):
    """The second grant tells only what was recorded before its turn began."""
    submit(client, chunk(0, 4))
    held = [consumer.lease(limit=1, wait=_NOW).grant.deliveries[0] for _ in range(2)]
    reports = [ack_of(each) for each in held]
    both = [[report, c.Lease(1, early=True)] for report in reports]
    manager.server.ask(lambda: [consumer.send(each) for each in both]).result(SECONDS)
    numbers = list(consumer._sent)

    answers = [consumer.receive(numbers[place:], SECONDS) for place in range(2)]

    assert [replies[-1].early for _, replies in answers] == [True, True]
    assert consumer._unrecorded == reports
    consumer.ping()
    assert consumer._unrecorded == []


def test_a_report_does_not_go_before_earlier_ones_whose_connection_has_ended(manager, client, consumer):
    """Its call would make a new connection by itself, and be the first report there."""
    submit(client, chunk(0, 2))
    (delivery,) = consumer.lease(limit=2, wait=_NOW).grant.deliveries
    first, second = (c.Ack(delivery.token, number, [b"r"], [0.0]) for number in range(2))
    silent = threading.Event()
    blocked = manager.server.ask(lambda: silent.wait(SECONDS))
    number = consumer.send([first])
    assert number
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(consumer.call, [second])
        manager.until(lambda: consumer._request > number)
        consumer._stream._channel.shutdown(socket.SHUT_RDWR)
        with pytest.raises(ManagerUnreachable, match="before earlier reports were answered"):
            late.result(SECONDS)
    silent.set()
    blocked.result(SECONDS)


def test_a_fork_has_none_of_them(consumer):
    number = consumer.send([c.Ping()])
    consumer.begin_anew()

    with pytest.raises(ManagerUnreachable):
        consumer.receive([number], 0.0)


def test_after_an_interruption_in_the_middle_of_a_request_there_is_another_connection(
    consumer: ManagerBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send_half(stream: Stream, message: bytes | bytearray) -> None:
        stream._channel.sendall(message[: len(message) // 2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Stream, "send", send_half)
        with pytest.raises(KeyboardInterrupt):
            consumer.send([c.Ping()])

    consumer.ping()
    assert consumer.reconnects == 1


def test_a_hello_of_an_older_release_is_no_bar(manager):
    """An older consumer sends no `running`, and its requests end no other's wait."""
    hello = c.Hello(PROTOCOL_VERSION, "consumer", name="w-9", worker="w", tasks=["m:f"])
    old = manager.broker(lambda: hello)
    old.connect()
    first = old.send([c.Lease(1, SECONDS)], wait=SECONDS)
    manager.until(lambda: manager.waiting() == 1)
    second = old.send([c.Lease(1, SECONDS)], wait=SECONDS)
    manager.until(lambda: manager.waiting() == 2)

    assert old.receive([first, second], 0.0) is None
    old._discard()
