"""Many consumers in one process: real connections and requests, but no work.

A real consumer is a process, and thousands of processes would measure the machine. To the manager these
consumers look the same: a handshake and a hello each, requests that wait for jobs, reports, and supervisors
that renew their leases once a second.
"""

from __future__ import annotations

import selectors
import time
from collections.abc import Sequence
from multiprocessing import connection as wire
from multiprocessing.connection import Connection
from typing import Self, cast

from svc.domain.commands import Ack, AnyCommand, Extend, Hello, Lease, Leave
from svc.domain.limits import GRANT_JOBS
from svc.domain.replies import Grant
from svc.wire import HEADER, PROTOCOL_VERSION, decode_response, encode_request, response_frame

#: Consumers of one worker by default; each worker also has a supervisor.
WORKER_CONSUMERS = 32
#: The task that the consumers name as known.
TASK = "benchmarks.tasks:same"
#: The request of a real consumer: it waits 20 s, and asks for further jobs of 4 ms of run time.
_REQUEST = Lease(GRANT_JOBS, wait=20.0, ahead=0.02, early=True)
#: The reported run time of a job in seconds: about that of a job that does nothing.
_RUN_SECONDS = 1e-5
_EXTEND_SECONDS = 1.0


class ManyConsumers:
    """Connected consumers that wait for jobs of one queue, and end each as soon as they have it."""

    def __init__(
        self,
        address: tuple[str, int],
        authkey: bytes,
        count: int,
        queue: str = "default",
        of_one_worker: int = WORKER_CONSUMERS,
    ) -> None:
        """Prepare *count* consumers of *queue*."""
        self._each = of_one_worker
        self._address, self._authkey, self._queue = address, authkey, queue
        self._count = count
        self._selector = selectors.DefaultSelector()
        self._supervisors: list[Connection] = []
        self._consumers: list[Connection] = []
        self._extend_at = 0.0
        #: Messages that consumers got, and jobs that they ended.
        self.messages = 0
        self.jobs = 0

    def __enter__(self) -> Self:
        """Connect all consumers, and let them wait for jobs."""
        for number in range(self._count):
            worker = f"many-{number // self._each}"
            if number % self._each == 0:
                self._supervisors.append(self._connected("worker", worker, worker))
            consumer = self._connected("consumer", f"{worker}-{number}", worker)
            self._consumers.append(consumer)
            self._selector.register(consumer, selectors.EVENT_READ)
            _send(consumer, [_REQUEST])
            self._extend(time.monotonic())
        return self

    def __exit__(self, *exception: object) -> None:
        """Disconnect all with a leave."""
        for connection in (*self._consumers, *self._supervisors):
            _send(connection, [Leave()])
            connection.close()
        self._selector.close()

    def serve(self, seconds: float, jobs: int | None = None) -> float:
        """Serve the consumers for *seconds*, or until *jobs* more jobs are ended; return the seconds taken.

        Raises:
            TimeoutError: the jobs did not come.
        """
        started = now = time.monotonic()
        wanted = None if jobs is None else self.jobs + jobs
        while now < started + seconds and (wanted is None or self.jobs < wanted):
            for key, _ in self._selector.select(min(0.05, started + seconds - now)):
                self._answer(cast("Connection", key.fileobj))
            now = time.monotonic()
            self._extend(now)
        if wanted is not None and self.jobs < wanted:
            raise TimeoutError(f"{wanted - self.jobs} of {jobs} jobs did not come within {seconds:g} s")
        return now - started

    def _answer(self, consumer: Connection) -> None:
        grant = _received(consumer)[-1]
        self.messages += 1
        reports: list[AnyCommand] = []
        if isinstance(grant, Grant):
            for each in grant.deliveries:
                count = len(each.bodies)
                reports.append(Ack(each.token, each.first, [b"\xc0"] * count, [_RUN_SECONDS] * count))
                self.jobs += count
        _send(consumer, [*reports, _REQUEST])

    def _extend(self, now: float) -> None:
        if now < self._extend_at:
            return
        self._extend_at = now + _EXTEND_SECONDS
        for supervisor in self._supervisors:
            _send(supervisor, [Extend(idle=self._each)])
        for supervisor in self._supervisors:
            _received(supervisor)

    def _connected(self, role: str, name: str, worker: str) -> Connection:
        connection = wire.Client(self._address, authkey=self._authkey)
        connection.send((None, "accept_connection", (name,), {}))
        connection.recv()
        hello = Hello(PROTOCOL_VERSION, role, name, worker, "bench", tasks=[TASK], queues=[self._queue])
        _send(connection, [hello])
        _received(connection)
        return connection


def _send(connection: Connection, commands: Sequence[AnyCommand]) -> None:
    connection.send_bytes(encode_request(1, commands)[HEADER.size :])


def _received(connection: Connection) -> list[object]:
    frame = response_frame(connection.recv_bytes())
    if frame is None:
        raise RuntimeError("the manager answered something that is not a frame")
    return list(decode_response(frame)[1])
