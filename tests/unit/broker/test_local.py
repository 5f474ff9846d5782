from __future__ import annotations

import threading

import pytest

from svc.broker.local import LocalBroker, LocalQueue
from svc.domain import commands as c
from svc.errors import ManagerUnreachable
from svc.wire import PROTOCOL_VERSION
from tests.support.inside import waiting_lessees


def consumer(queue: LocalQueue) -> LocalBroker:
    return LocalBroker(queue, lambda: c.Hello(PROTOCOL_VERSION, "consumer", "w-1", "w", tasks=["m:f"]))


def test_a_closed_queue_is_unreachable():
    queue = LocalQueue()
    broker = consumer(queue)
    queue.close()
    queue.close()

    with pytest.raises(ManagerUnreachable):
        broker.call([c.Ping()])
    broker.close()


def test_closing_the_queue_ends_the_calls_that_wait():
    queue, ended = LocalQueue(), []
    broker = consumer(queue)

    def wait() -> None:
        try:
            broker.call([c.Lease(1, 60.0)])
        except ManagerUnreachable:
            ended.append(1)

    thread = threading.Thread(target=wait)
    thread.start()
    while not waiting_lessees(queue.host):
        threading.Event().wait(0.001)
    queue.close()
    thread.join(30)

    assert ended == [1]


def test_many_threads_share_one_queue():
    queue = LocalQueue()
    brokers = [LocalBroker(queue) for _ in range(8)]
    threads = [
        threading.Thread(target=lambda each=broker: [each.call([c.Ping()]) for _ in range(50)])
        for broker in brokers
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert not any(thread.is_alive() for thread in threads)
