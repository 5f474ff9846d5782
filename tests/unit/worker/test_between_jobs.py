"""What a consumer does between two jobs of one grant, which each job of some milliseconds pays for."""

from __future__ import annotations

import logging
import multiprocessing
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from svc.broker.local import LocalBroker, LocalQueue
from svc.codec import encode_arguments
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.job import NewChunk, Terms, job_id
from svc.domain.replies import Delivery
from svc.worker.capture import Capture
from svc.worker.consumer import Consumer
from svc.worker.leftovers import Leftovers
from svc.worker.options import WorkerOptions
from svc.worker.orders import FLUSH, STOP
from svc.worker.outbox import UNSENT_SECONDS
from svc.worker.registry import Registry, Task
from svc.worker.slot import Slot

SECONDS = 20.0
#: Seconds between two looks at the clock, and so the run time of each job: not short, and four of them, with
#: as much between them, are over before their outcomes are due.
RUN = 0.003
JOBS = 4
assert 2 * RUN * (JOBS - 1) < UNSENT_SECONDS


class Clock:
    """A clock that goes on by `RUN` with each look."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        self.now += RUN
        return self.now


class Marks(Capture):
    """Notes the jobs whose output was marked."""

    def __init__(self) -> None:
        self.settled: list[int] = []

    def settle(self, delivery: Delivery, number: int) -> None:
        self.settled.append(number)


class Looks(Leftovers):
    """Counts the jobs after which it was asked to clear up."""

    def __init__(self) -> None:
        self.count = 0

    def clear(self, *, keep_children: bool) -> list[str]:
        self.count += 1
        return []

    def catch_up(self) -> list[str]:
        return []


class Bench:
    """A consumer in a thread, by whose clock each job takes `RUN` seconds."""

    def __init__(self) -> None:
        self.begun, self.open = threading.Semaphore(0), threading.Semaphore(0)
        self.queue = LocalQueue()
        self.client = LocalBroker(self.queue)
        self.marks, self.looks = Marks(), Looks()
        self.pipe, theirs = multiprocessing.Pipe()
        slot = Slot(multiprocessing.get_context("spawn"))
        tasks = Registry([Task("t:job", self._job)])
        options = WorkerOptions("w", "here", 1)
        connect = lambda hello: LocalBroker(self.queue, hello)  # noqa: E731 - it has no other name
        self.consumer = Consumer(options, "w-1", tasks, slot, theirs, connect, self.looks)
        self.consumer.capture = self.marks
        self.thread = threading.Thread(target=self.consumer.run, daemon=True)

    def _job(self, waits: bool) -> None:
        if waits:
            self.begun.release()
            assert self.open.acquire(timeout=SECONDS)

    def run(self, *, last_waits: bool = False) -> None:
        """Submit `JOBS` jobs, and let the consumer take all of them at once, under one lease."""
        for _ in range(50):
            self.queue.host.state.run_times.ran("t:job", 100, 0.0001)
        waits = [False] * (JOBS - 1) + [last_waits]
        bodies = [encode_arguments("plain", (each,), {}) for each in waits]
        self.client.submit("o", [NewChunk(0, Terms("t:job"), bodies)])
        self.thread.start()

    def await_ends(self, count: int) -> None:
        ids = [job_id("o", number) for number in range(count)]
        (reply,) = self.client.call([c.Await(ids, SECONDS)], wait=SECONDS)
        assert isinstance(reply, r.Outcomes)
        assert reply.pending == 0

    def stop(self) -> None:
        self.pipe.send_bytes(STOP)
        self.open.release(JOBS)
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    with capture_logs() as found:
        yield found
    structlog.configure(**before)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, logs: list[Any]) -> Iterator[Bench]:
    monkeypatch.setattr("svc.worker.consumer.time", SimpleNamespace(monotonic=Clock().monotonic))
    found = Bench()
    yield found
    found.stop()
    found.queue.close()
    found.pipe.close()


def finished(logs: list[Any]) -> list[tuple[str, int]]:
    return [(each["event"], each.get("jobs", 1)) for each in logs if each["event"].startswith("attempt")]


def test_jobs_of_some_milliseconds_share_a_line_of_the_log(bench, logs):
    bench.run()
    bench.await_ends(JOBS)
    assert finished(logs) == [("attempts_finished", JOBS)]


def test_the_line_of_jobs_that_have_ended_does_not_wait_for_a_long_job_behind_them(bench, logs):
    bench.run(last_waits=True)
    assert bench.begun.acquire(timeout=SECONDS)
    bench.pipe.send_bytes(FLUSH)
    bench.await_ends(JOBS - 1)
    assert finished(logs) == [("attempts_finished", JOBS - 1)]


def test_each_job_is_followed_by_one_look_and_one_mark_also_the_last_of_a_grant(bench):
    bench.run()
    bench.await_ends(JOBS)
    assert (bench.looks.count, bench.marks.settled) == (JOBS, list(range(JOBS)))
