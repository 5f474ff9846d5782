"""A flood of connections: peers that connect and send nothing or a byte a second, while honest clients work.

`flooded` keeps these attackers connected, from one process; an attacker that is refused or cut off connects
again some seconds later. `connects` is an honest client that connects again and again, in another process.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import itertools
import multiprocessing
import random
import resource
import select
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as Pipe

from benchmarks.figures import below
from svc.addresses import Address
from svc.app import connect
from svc.errors import ServiceError
from svc.wire import HEADER

#: The number of peers that send nothing, and of peers that send a byte each second.
SILENT = 900
DRIPPING = 100
#: The addresses of the attackers: the address of the honest clients, or so many addresses that no limit for
#: one address keeps them out.
SOURCES = {
    "from one address": ["127.0.0.1"],
    "from 100 addresses": [f"127.0.1.{last}" for last in range(1, 101)],
}
#: Seconds between two bytes.
DRIP_SECONDS = 1.0
#: The range of seconds until a refused attacker connects again. The time is random, since attackers that were
#: refused together would otherwise always come together.
RETURN_SECONDS = (2.5, 7.5)
#: Seconds between two honest clients.
PAUSE_SECONDS = 0.01
_SETTLE_SECONDS = 60.0
Endpoint = tuple[str, int]


@dataclass
class Visits:
    """The figures of honest clients: seconds from connecting to the first answer, and how many got none."""

    seconds: list[float] = field(default_factory=list)
    refused: int = 0

    @property
    def count(self) -> int:
        """How many clients connected."""
        return len(self.seconds) + self.refused

    def part(self, share: float) -> float:
        """Return the seconds within which a *share* of the served clients had an answer."""
        return below(self.seconds, share)


@contextmanager
def flooded(endpoint: Endpoint, sources: list[str]) -> Iterator[list[int]]:
    """Keep the attackers connected while the block runs, which begins once all have connected.

    They use the loopback addresses *sources*. The value is the list of the attackers' process ids.
    """
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    child = context.Process(target=_flood, args=(there, endpoint, sources))
    child.start()
    there.close()
    try:
        if not here.poll(_SETTLE_SECONDS):
            raise TimeoutError(f"the flood was not there within {_SETTLE_SECONDS:g} s")
        here.recv()
        yield [child.pid] if child.pid else []
    finally:
        here.close()
        child.join()


@contextmanager
def connects(endpoint: Endpoint, authkey: bytes) -> Iterator[Visits]:
    """Connect honest clients, one after the other, while the block runs; the value is set after the block."""
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    child = context.Process(target=_visit, args=(there, endpoint, authkey))
    child.start()
    there.close()
    here.recv()
    visits = Visits()
    try:
        yield visits
    finally:
        here.send("enough")
        visits.seconds, visits.refused = here.recv()
        child.join()


def _visit(pipe: Pipe, endpoint: Endpoint, authkey: bytes) -> None:
    taken: list[float] = []
    refused = 0
    pipe.send("ready")
    while not pipe.poll(PAUSE_SECONDS):
        started = time.perf_counter()
        try:
            with connect(Address(*endpoint), authkey, 10.0) as broker:
                broker.connect()
        except ServiceError:
            refused += 1
        else:
            taken.append(time.perf_counter() - started)
    pipe.send((taken, refused))


class Flood:
    """All the attackers, in one loop."""

    def __init__(self, endpoint: Endpoint, sources: list[str]) -> None:
        """Prepare to connect to *endpoint*, from each of *sources* in turn."""
        self._endpoint = endpoint
        self._epoll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._sources = itertools.cycle(sources)
        #: A heap of times (monotonic), each with the descriptor that sends its next byte, or -1 to connect.
        self._due = [(0.0, -1)] * (SILENT + DRIPPING)
        self._dripping: set[int] = set()

    def run(self, pipe: Pipe) -> None:
        """Run until the other end of *pipe* is closed; send a message on it once all have connected."""
        arrived = 0
        self._epoll.register(pipe.fileno(), select.EPOLLIN)
        while True:
            now = time.monotonic()
            while self._due and self._due[0][0] <= now:
                _, who = heapq.heappop(self._due)
                if who >= 0:
                    self._send_byte(who, now)
                    continue
                self._connect(now)
                arrived += 1
                if arrived == SILENT + DRIPPING:
                    pipe.send("there")
            pause = max(0.0, self._due[0][0] - time.monotonic()) if self._due else 1.0
            for fd, _ in self._epoll.poll(pause):
                if fd == pipe.fileno():
                    return
                self._read(fd)

    def _connect(self, now: float) -> None:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # no port left in TIME_WAIT
        with contextlib.suppress(OSError):
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_BIND_ADDRESS_NO_PORT, 1)
        sock.bind((next(self._sources), 0))
        if sock.connect_ex(self._endpoint) not in (0, errno.EINPROGRESS):
            sock.close()
            self._connect_later()
            return
        fd = sock.fileno()
        self._sockets[fd] = sock
        self._epoll.register(fd, select.EPOLLIN | select.EPOLLRDHUP)
        if len(self._dripping) < DRIPPING:
            self._dripping.add(fd)
            heapq.heappush(self._due, (now + DRIP_SECONDS, fd))

    def _send_byte(self, fd: int, now: float) -> None:
        if fd not in self._dripping:
            return
        with contextlib.suppress(OSError):  # if the connection has ended, `_read` handles it
            self._sockets[fd].send(HEADER.pack(200)[:1])
        heapq.heappush(self._due, (now + DRIP_SECONDS, fd))

    def _read(self, fd: int) -> None:
        with contextlib.suppress(OSError):
            if self._sockets[fd].recv(4096):
                return  # the challenge, which is not answered
        self._epoll.unregister(fd)
        self._sockets.pop(fd).close()
        if fd in self._dripping:
            self._dripping.discard(fd)
            self._due = [each for each in self._due if each[1] != fd]
            heapq.heapify(self._due)
        self._connect_later()

    def _connect_later(self) -> None:
        heapq.heappush(self._due, (time.monotonic() + random.uniform(*RETURN_SECONDS), -1))


def _flood(pipe: Pipe, endpoint: Endpoint, sources: list[str]) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with contextlib.suppress(BrokenPipeError):
        Flood(endpoint, sources).run(pipe)
