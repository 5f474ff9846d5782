"""A bare work queue on NATS, as a team may write it with nats-py: a message for each job and each result.

Jobs are in a stream that deletes a message once it is acknowledged. Results are in another one, which keeps
them for an hour, so that the client need not acknowledge them. Both have three replicas. Consumers take jobs
in batches, store all results of a batch at once, and acknowledge the jobs only then: so, as with svc, no
accepted job and no result is lost. Client and consumers have many messages in flight.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from secrets import token_hex
from typing import Any, Self

import nats
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, RetentionPolicy
from nats.js.client import JetStreamContext

from benchmarks.systems import PROCESSES, end

#: Messages that are asked for at once, and that are in flight at most, of each process.
BATCH, IN_FLIGHT = 256, 512
#: Seconds for which a consumer waits for a full batch.
_WAIT_SECONDS = 0.05
_RESULT_SECONDS = 3600.0
_CONSUMER = "consumers"


class BareQueue:
    """The queue with four consumer processes; a context manager."""

    name = "bare nats-py work queue"

    def __init__(self, servers: list[str]) -> None:
        """Use the NATS *servers*, HOST:PORT each."""
        self._urls = [f"nats://{server}" for server in servers]
        self._name = f"bare{token_hex(4)}"
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Make the streams, and start the consumers."""
        asyncio.run(self._make())
        for _ in range(PROCESSES):
            command = [sys.executable, "-m", "benchmarks.bare_queue", self._name, *self._urls]
            self._stack.callback(end, subprocess.Popen(command))
        self.rate(4 * PROCESSES)  # all have begun
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop the consumers, and delete the streams."""
        self._stack.close()
        asyncio.run(self._delete())

    def rate(self, jobs: int) -> float:
        """Return the jobs a second from the first submit to the last result."""
        return jobs / asyncio.run(self._seconds(jobs))

    async def _seconds(self, jobs: int) -> float:
        client = await nats.connect(servers=self._urls)
        stream = client.jetstream(publish_async_max_pending=IN_FLIGHT)
        seen: set[int] = set()
        all_seen = asyncio.Event()

        async def take(message: Msg) -> None:
            seen.add(json.loads(message.data))
            if len(seen) == jobs:
                all_seen.set()

        later = ConsumerConfig(deliver_policy=DeliverPolicy.NEW, ack_policy=AckPolicy.NONE)
        await stream.subscribe(f"{self._name}.results", cb=take, config=later)
        started = time.perf_counter()
        await _submit(stream, f"{self._name}.jobs", jobs)
        await all_seen.wait()
        taken = time.perf_counter() - started
        await client.close()
        return taken

    async def _make(self) -> None:
        client = await nats.connect(servers=self._urls)
        stream, jobs, results = client.jetstream(), f"{self._name}-jobs", f"{self._name}-results"
        queue: dict[str, Any] = {"retention": RetentionPolicy.WORK_QUEUE}
        for name, options in ((jobs, queue), (results, {"max_age": _RESULT_SECONDS})):
            subject = name.replace("-", ".")
            await stream.add_stream(name=name, subjects=[subject], num_replicas=3, **options)
        taken = ConsumerConfig(durable_name=_CONSUMER, max_ack_pending=4 * PROCESSES * BATCH)
        await stream.add_consumer(jobs, taken)
        await client.close()

    async def _delete(self) -> None:
        client = await nats.connect(servers=self._urls)
        for kind in ("jobs", "results"):
            await client.jetstream().delete_stream(f"{self._name}-{kind}")
        await client.close()


async def _submit(stream: JetStreamContext, subject: str, jobs: int) -> None:
    answers = [await stream.publish_async(subject, json.dumps(number).encode()) for number in range(jobs)]
    await asyncio.gather(*answers)


async def _consume(name: str, urls: list[str]) -> None:
    """Run jobs until the process is ended; two batches are under way at any time."""
    client = await nats.connect(servers=urls)
    stream = client.jetstream(publish_async_max_pending=IN_FLIGHT)
    jobs = await stream.pull_subscribe_bind(_CONSUMER, f"{name}-jobs")
    await asyncio.gather(*(_run_batches(stream, jobs, f"{name}.results") for _ in range(2)))


async def _run_batches(stream: JetStreamContext, jobs: Any, subject: str) -> None:
    while True:
        with suppress(TimeoutError):
            batch = await jobs.fetch(BATCH, timeout=_WAIT_SECONDS)
            stored = [
                await stream.publish_async(subject, json.dumps(json.loads(each.data)).encode())
                for each in batch
            ]
            await asyncio.gather(*stored)
            for each in batch:
                await each.ack()


if __name__ == "__main__":
    asyncio.run(_consume(sys.argv[1], sys.argv[2:]))
