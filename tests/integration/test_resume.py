"""A drain that is ended before every consumer has gone: the worker has all its consumers again."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from multiprocessing.managers import BaseManager
from typing import Any

import pytest

from tests.support.workers import KEY, Client, Manager, Worker, options, until

CONSUMERS = 4
Start = Callable[..., Worker]


@pytest.fixture
def manager() -> Iterator[Manager]:
    manager = Manager()
    manager.start()
    yield manager
    manager.stop()


@pytest.fixture
def start(manager: Manager) -> Iterator[Start]:
    workers: list[Worker] = []

    def start(**changes: Any) -> Worker:
        worker = Worker(manager.address, options(CONSUMERS, **changes))
        workers.append(worker)
        worker.start()
        return worker

    yield start
    for worker in workers:
        worker.end()


@pytest.fixture
def client(manager: Manager) -> Iterator[Client]:
    with manager.client() as client:
        yield client


def consumers(client: Client, name: str = "w") -> int:
    return sum(view.consumers for view in client.broker.members() if view.name == name)


def wait_for(client: Client, count: int, name: str = "w") -> None:
    until(lambda: consumers(client, name) == count, what=f"{count} consumers")


def drain_down(client: Client, seconds: float = 100.0, *, worker: str = "", busy: int = 1) -> list[str]:
    """Drain until only the consumers are left that run jobs of *seconds*; return these jobs."""
    wait_for(client, CONSUMERS)
    jobs = client.submit("sleep", *[(seconds,)] * busy)
    until(lambda: all(client.state(job) == "leased" for job in jobs))
    client.broker.drain(worker=worker)
    wait_for(client, busy)
    return jobs


@pytest.mark.parametrize("busy", [1, CONSUMERS - 1])
@pytest.mark.parametrize("named", [False, True])
def test_a_worker_has_all_its_consumers_again(client: Client, start: Start, busy: int, named: bool):
    worker = start()
    drain_down(client, busy=busy, worker="w" if named else "")
    client.broker.resume(worker="w" if named else "")
    wait_for(client, CONSUMERS)
    assert client.results(client.submit("echo", *[(n,) for n in range(8)])) == list(range(8))
    until(lambda: worker.events("worker_resumed"))
    # The manager may know that a consumer has left before its supervisor does.
    assert 1 <= worker.events("worker_resumed")[0]["consumers"] <= CONSUMERS - busy


def test_it_has_them_after_each_of_several_drains(client: Client, start: Start):
    start()
    drain_down(client, 100.0)
    for _ in range(2):
        client.broker.resume()
        wait_for(client, CONSUMERS)
        client.broker.drain()
        wait_for(client, 1)
    client.broker.resume()
    wait_for(client, CONSUMERS)


def test_it_has_them_if_the_manager_was_restarted_in_between(manager: Manager, client: Client, start: Start):
    start()
    drain_down(client)
    manager.restart()
    client.broker.resume()
    wait_for(client, CONSUMERS)


def test_a_consumer_that_had_a_pill_put_by_hand_has_no_successor(
    manager: Manager, client: Client, start: Start
):
    """Who puts one wants one consumer less, for good."""
    start()
    wait_for(client, CONSUMERS)
    BaseManager.register("tasks")
    stock = BaseManager(manager.address, KEY)
    stock.connect()
    stock.tasks().put(None)  # type: ignore[attr-defined]
    wait_for(client, CONSUMERS - 1)
    client.submit("sleep", (100,))
    until(lambda: client.broker.stats().busy == 1)
    client.broker.drain()
    wait_for(client, 1)
    client.broker.resume()
    wait_for(client, CONSUMERS - 1)


def test_a_worker_that_is_told_to_stop_during_a_drain_fills_no_place(client: Client, start: Start):
    worker = start(grace=2.0)
    drain_down(client)
    worker.signal(signal.SIGTERM)
    until(lambda: worker.events("worker_stopping"))
    client.broker.resume()
    assert worker.wait() == 0
    assert not worker.events("worker_resumed")
