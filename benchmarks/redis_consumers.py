"""Many consumers of a list in Redis, in one process: what a queue on Redis does for each job at the least.

A consumer waits for a job with a blocking move into a list of its own; when the job is done it removes it
there, adds the result to another list, and waits for the next one, all in one message.
"""

from __future__ import annotations

import re
import selectors
import socket
import time
from typing import Self, cast

_BULK = re.compile(rb"\$(\d+)\r\n")
_BATCH = 1_000


class RedisConsumers:
    """Connected consumers that end each job as soon as they have it."""

    def __init__(self, address: tuple[str, int], count: int) -> None:
        """Prepare *count* consumers."""
        self._address, self._count = address, count
        self._selector = selectors.DefaultSelector()
        self._buffers: dict[socket.socket, bytes] = {}
        #: Jobs that consumers got.
        self.jobs = 0

    def __enter__(self) -> Self:
        """Connect all, and let them wait."""
        for number in range(self._count):
            consumer = socket.create_connection(self._address)
            consumer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._buffers[consumer] = b""
            self._selector.register(consumer, selectors.EVENT_READ, number)
            consumer.sendall(_waiting(number))
        return self

    def __exit__(self, *exception: object) -> None:
        """Disconnect all."""
        for consumer in self._buffers:
            consumer.close()
        self._selector.close()

    def submit(self, jobs: int) -> None:
        """Add jobs to the list, a thousand in a command."""
        with socket.create_connection(self._address) as client:
            for start in range(0, jobs, _BATCH):
                values = [b"job-%d" % number for number in range(start, min(start + _BATCH, jobs))]
                client.sendall(_command(b"RPUSH", b"tasks", *values))
                client.recv(64)

    def serve(self, seconds: float, jobs: int) -> None:
        """Serve the consumers until they have got *jobs* more jobs.

        Raises:
            TimeoutError: the jobs did not come within *seconds*.
        """
        wanted, end = self.jobs + jobs, time.monotonic() + seconds
        while self.jobs < wanted:
            for key, _ in self._selector.select(0.05):
                self._answer(cast("socket.socket", key.fileobj), key.data)
            if time.monotonic() > end:
                raise TimeoutError(f"{wanted - self.jobs} of {jobs} jobs did not come within {seconds:g} s")

    def _answer(self, consumer: socket.socket, number: int) -> None:
        data = self._buffers[consumer] + consumer.recv(4096)
        self._buffers[consumer] = data
        found = _BULK.search(data)
        if found is None or len(data) < found.end() + int(found.group(1)) + 2:
            return
        value = data[found.end() : -2]
        self._buffers[consumer] = b""
        self.jobs += 1
        mine = b"busy-%d" % number
        done = _command(b"LREM", mine, b"1", value) + _command(b"RPUSH", b"results", value)
        consumer.sendall(done + _waiting(number))


def _waiting(number: int) -> bytes:
    return _command(b"BLMOVE", b"tasks", b"busy-%d" % number, b"LEFT", b"RIGHT", b"0")


def _command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
