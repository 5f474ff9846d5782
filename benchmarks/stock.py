"""The figures of plain `BaseManager` clients, which make one call for each put, get and task_done."""

from __future__ import annotations

import multiprocessing
import statistics
import threading
import time
from multiprocessing.managers import BaseManager
from typing import Any, Protocol

#: Seconds in which all clients of one measure must be connected.
_START_SECONDS = 60.0


class Server(Protocol):
    """A server of stock clients."""

    name: str

    @property
    def pid(self) -> int:
        """Its process."""

    @property
    def endpoint(self) -> Any:
        """Host and port."""

    @property
    def authkey(self) -> bytes:
        """The shared secret."""


class _Client(BaseManager):
    """The class of a stock program: a manager that only connects."""


_Client.register("tasks")


def one_client(server: Server, count: int) -> float:
    """Return the items a second that one client puts, gets and acknowledges: three calls for each item."""
    tasks = _connected(server)
    started = time.perf_counter()
    for number in range(count):
        tasks.put(number)
    for _ in range(count):
        tasks.get()
        tasks.task_done()
    return count / (time.perf_counter() - started)


def many_clients(server: Server, count: int, clients: int = 4) -> float:
    """Return the items a second that pass from *clients* producers to as many consumers."""
    # Fork is not used: this process has threads by now, and a child might wait for ever for their locks.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    barrier = context.Barrier(2 * clients + 1, timeout=_START_SECONDS)
    each = count // clients
    children = [
        context.Process(target=target, args=(server.endpoint, server.authkey, barrier, each))
        for target in (_produce, _consume)
        for _ in range(clients)
    ]
    for child in children:
        child.start()
    barrier.wait()
    started = time.perf_counter()
    for child in children:
        child.join()
    return each * clients / (time.perf_counter() - started)


def connect_seconds(server: Server, times: int) -> float:
    """Return the median time to connect and get the answer of the first call."""
    taken: list[float] = []

    def measure() -> None:
        started = time.perf_counter()
        _connected(server).qsize()
        taken.append(time.perf_counter() - started)

    for _ in range(times):
        # The stdlib keeps a connection for each thread: only a new thread connects again.
        thread = threading.Thread(target=measure)
        thread.start()
        thread.join()
    return statistics.median(taken)


def _connected(server: Server) -> Any:
    client = _Client(server.endpoint, server.authkey)
    client.connect()
    return client.tasks()  # type: ignore[attr-defined]  # registered above


def _produce(endpoint: Any, authkey: bytes, barrier: Any, count: int) -> None:
    tasks = _in_child(endpoint, authkey, barrier)
    for number in range(count):
        tasks.put(number)


def _consume(endpoint: Any, authkey: bytes, barrier: Any, count: int) -> None:
    tasks = _in_child(endpoint, authkey, barrier)
    for _ in range(count):
        tasks.get()
        tasks.task_done()


def _in_child(endpoint: Any, authkey: bytes, barrier: Any) -> Any:
    multiprocessing.current_process().authkey = authkey
    client = _Client(endpoint, authkey)
    client.connect()
    tasks = client.tasks()  # type: ignore[attr-defined]  # registered above
    tasks.qsize()
    barrier.wait()
    return tasks
