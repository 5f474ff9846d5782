"""A service whose worker and client reach the manager over a link, and round trips over a link alone."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.proxy import Link
from benchmarks.systems import Service, end, task_name
from svc import Client


@dataclass(frozen=True)
class FarService:
    """A service at the other end of a link."""

    service: Service
    client: Client
    link: Link

    def all(self, function: Any, arguments: Iterable[object]) -> Iterator[Any]:
        """Submit all jobs, then follow their results."""
        return self.client.map(task_name(function), arguments)

    def pids(self) -> dict[str, list[int]]:
        """Return the manager's process, and the supervisor with its consumers."""
        return self.service.pids()

    def one(self, function: Any, argument: object) -> object:
        """Submit one job and wait for its result."""
        return self.client.submit(task_name(function), argument).result()


@contextmanager
def far_service(durability: str, consumers: int, delay: float, *worker_flags: str) -> Iterator[FarService]:
    """Run a manager, and a worker and a client that reach it over a link of *delay* seconds each way."""
    with Service(durability, consumers=0) as service, Link([service.address], delay) as link:
        place = link.addresses[0]
        service.worker = worker = service.start_worker(consumers, *worker_flags, manager=place)
        try:
            service.wait_for_consumers(consumers)
            with Client(place, authkey_file=service.keyfile) as client:
                yield FarService(service, client, link)
        finally:
            end(worker)  # while it still reaches its manager


@contextmanager
def echo() -> Iterator[str]:
    """Run a server that sends all bytes back, and yield its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_echo, args=(listener,), daemon=True).start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)


def _echo(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := connection.recv(4096):
                connection.sendall(data)


def trip_seconds(address: str, trips: int) -> list[float]:
    """Return the times of *trips* small messages to the echo at *address* and back, one after the other."""
    host, _, port = address.rpartition(":")
    taken: list[float] = []
    with socket.create_connection((host, int(port))) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(trips + 1):
            started = time.perf_counter()
            connection.sendall(b"x")
            connection.recv(1)
            taken.append(time.perf_counter() - started)
    return taken[1:]  # the first one also opens the connection
