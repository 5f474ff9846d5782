"""A consumer that asks for jobs while it runs others, with a real manager; its supervisor is the test."""

from __future__ import annotations

import contextlib
import multiprocessing
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from typing import TypeVar

import pytest

from svc.broker.host import QueueHost
from svc.broker.manager import ManagerBroker
from svc.codec import encode_arguments
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.job import NewChunk, Terms, job_id
from svc.worker.consumer import Consumer
from svc.worker.options import WorkerOptions
from svc.worker.orders import FLUSH, STOP
from svc.worker.registry import Registry, Task, TaskOptions
from svc.worker.slot import Phase, Slot
from tests.support.inside import waiting_behind
from tests.support.manager import RunningManager, running_manager

SECONDS = 20.0
_NOW = timedelta(0)
TRIP = 0.5
#: Run times in seconds: behind such a job the next one comes at once, or only after a while.
SOON, LATE = 1.0, 9.0
T = TypeVar("T")


class Bench:
    """One consumer in a thread, and the manager that it works for, as if that were far away."""

    def __init__(self, manager: RunningManager) -> None:
        self.manager = manager
        self.begun, self.open = threading.Semaphore(0), threading.Semaphore(0)
        self.ran: Counter[int] = Counter()
        self.slot = Slot(multiprocessing.get_context("spawn"))
        self.pipe, self._theirs = multiprocessing.Pipe()
        self.client = manager.broker()
        self.supervisor = manager.broker(lambda: c.Hello(1, "worker", "w-0", "w"))
        self.supervisor.call([c.Extend(round_trip=TRIP)])
        tasks = [Task("t:gate", self._gate), Task("t:many", self._many, TaskOptions(concurrency=5))]
        options = WorkerOptions("w", "here", 1)
        self.consumer = Consumer(options, "w-1", Registry(tasks), self.slot, self._theirs, manager.broker)
        self.thread = threading.Thread(target=self.consumer.run)

    def _gate(self, number: int) -> int:
        self.ran[number] += 1
        self.begun.release()
        assert self.open.acquire(timeout=SECONDS)
        return number

    async def _many(self, number: int) -> int:
        self.ran[number] += 1
        return number

    @property
    def broker(self) -> ManagerBroker:
        broker = self.consumer.connection.broker
        assert isinstance(broker, ManagerBroker)
        return broker

    def inside(self, look: Callable[[QueueHost], T]) -> T:
        return self.manager.server.ask(lambda: look(self.manager.host)).result(SECONDS)

    def learn(self, seconds: float) -> None:
        """Let the manager know how long the tasks take."""
        self.inside(partial(_learn, seconds))

    def submit(self, *numbers: int, task: str = "t:gate") -> None:
        bodies = [encode_arguments("plain", (number,), {}) for number in numbers]
        self.client.submit("o", [NewChunk(numbers[0], Terms(task), bodies)])

    def await_begin(self) -> None:
        assert self.begun.acquire(timeout=SECONDS)

    def await_held(self, jobs: int) -> None:
        """Wait until the consumer has the leases of so many jobs."""
        self.manager.until(lambda: self.inside(_leased) == jobs)

    def has_looked_and_asks_for_none(self) -> bool:
        """Let the consumer look for answers; return whether it waits for none."""
        self.pipe.send_bytes(FLUSH)
        return not self.consumer._requests.asks

    def state(self, number: int) -> str:
        return self.client.get([job_id("o", number)])[0].state

    def finish(self, *numbers: int) -> None:
        """Let all jobs end, and wait for the results of *numbers*."""
        self.open.release(len(numbers))
        ids = [job_id("o", number) for number in numbers]
        (reply,) = self.client.call([c.Await(ids, SECONDS)], wait=SECONDS)
        assert isinstance(reply, r.Outcomes)
        assert reply.pending == 0
        assert not any(each.error for each in reply.outcomes)

    def recall(self) -> int:
        """Take back what is behind the running job, as the supervisor does; return how many jobs that are."""
        look = self.slot.look()
        with self.slot.held():
            self.slot.recall()
        (done,) = self.supervisor.call(
            [c.Recall("w-1", look.token, look.number, look.last, unread=look.asks)]
        )
        assert isinstance(done, r.Done)
        return done.count

    def stop(self) -> None:
        self.pipe.send_bytes(STOP)
        assert self.consumer._stopping.wait(SECONDS)
        self.open.release(100)
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()


def _learn(seconds: float, host: QueueHost) -> None:
    for task in ("t:gate", "t:many"):
        host.state.run_times.ran(task, 100, 100 * seconds)


def _leased(host: QueueHost) -> int:
    return sum(lease.stop - lease.start for lease in host.state.leases.values())


def _grant_late(host: QueueHost) -> None:
    """Grant the next job, as if the running one were nearly over."""
    (lease,) = host.state.leases.values()
    host._waiters.resume(lease.since + LATE - TRIP)


def _answer_with_none(host: QueueHost) -> None:
    """End the wait of the consumer's request for jobs behind others."""
    (waiting,) = (each for each in host._waiters.all.values() if each.request.member.name == "w-1")
    host._waiters.supersede(waiting.request.member)


@pytest.fixture
def bench() -> Iterator[Bench]:
    with running_manager() as manager:
        bench = Bench(manager)
        bench.learn(SOON)
        bench.thread.start()
        yield bench
        bench.stop()
        for broker in (bench.client, bench.supervisor):
            broker.close()
        bench.pipe.close()


def test_the_next_job_is_there_before_the_running_one_ends(bench):
    bench.submit(1, 2, 3)
    bench.await_begin()

    bench.await_held(2)

    assert bench.slot.look().asks
    bench.open.release()
    bench.await_begin()
    bench.await_held(2)
    bench.finish(1, 2, 3)
    assert bench.ran == {1: 1, 2: 1, 3: 1}


def test_behind_a_long_job_nothing_is_asked_for(bench):
    bench.learn(30.0)
    bench.submit(1, 2)
    bench.await_begin()

    assert not bench.slot.look().asks
    assert bench.state(2) == "ready"
    bench.finish(1, 2)


def test_jobs_that_were_taken_back_unread_run_elsewhere_and_once(bench):
    bench.submit(1, 2, 3)
    bench.await_begin()
    bench.await_held(2)

    assert bench.recall() == 1

    other = bench.manager.consumer("x-1", ("t:gate",))
    (taken,) = other.lease(limit=1, wait=_NOW).grant.deliveries
    assert taken.first == 2
    other.settle([c.Ack(taken.token, 2, [encode_arguments("plain", (), {})], [1.0])])
    bench.finish(1, 3)
    assert bench.ran == {1: 1, 3: 1}
    other._discard()


def test_jobs_that_are_granted_after_they_were_taken_back_run_once(bench):
    """The recall reaches the manager when the grant is on its way, or not at all."""
    bench.learn(LATE)
    bench.submit(1, 2, 3)
    bench.await_begin()
    bench.manager.until(lambda: bench.inside(waiting_behind) == 1)
    with bench.slot.held():
        bench.slot.recall()
    bench.inside(_grant_late)
    bench.await_held(2)

    bench.finish(1, 2, 3)

    assert bench.ran == {1: 1, 2: 1, 3: 1}
    assert not bench.slot.look().recalled


def test_a_recall_with_nothing_on_its_way_by_then_costs_no_later_job(bench):
    bench.learn(LATE)
    bench.submit(1, 2)
    bench.await_begin()
    bench.manager.until(lambda: bench.inside(waiting_behind) == 1)
    bench.client.cancel([job_id("o", 2)])
    bench.inside(_answer_with_none)
    bench.manager.until(bench.has_looked_and_asks_for_none)
    bench.recall()

    bench.submit(3)

    bench.finish(1, 3)
    assert bench.ran == {1: 1, 3: 1}


def test_a_pill_that_comes_after_a_recall_is_taken(bench):
    bench.learn(LATE)
    bench.submit(1, 2)
    bench.await_begin()
    bench.manager.until(lambda: bench.inside(waiting_behind) == 1)
    bench.recall()
    bench.client.drain()

    bench.open.release()

    bench.thread.join(SECONDS)
    assert bench.slot.look().phase is Phase.DRAINED
    assert bench.state(2) == "ready"


def test_a_connection_that_breaks_meanwhile_costs_no_job_and_no_result(bench):
    bench.submit(1, 2, 3)
    bench.await_begin()
    bench.await_held(2)

    with contextlib.suppress(OSError):
        stream = bench.broker._stream
        assert stream is not None
        stream._channel.shutdown(socket.SHUT_RDWR)

    bench.finish(1, 2, 3)
    assert bench.ran == {1: 1, 2: 1, 3: 1}


def test_jobs_that_run_many_at_once_follow_a_job_that_asked(bench):
    bench.submit(1, 2)
    bench.submit(3, 4, 5, 6, task="t:many")
    bench.await_begin()
    bench.await_held(2)

    bench.finish(1, 2, 3, 4, 5, 6)

    assert bench.ran == dict.fromkeys(range(1, 7), 1)


def test_told_to_stop_it_gives_back_what_is_on_its_way(bench):
    bench.submit(1, 2, 3)
    bench.await_begin()
    bench.await_held(2)

    bench.stop()

    assert [bench.state(number) for number in (1, 2, 3)] == ["succeeded", "ready", "ready"]
    assert bench.slot.look().phase is Phase.STOPPING


def test_results_that_wait_behind_a_job_are_reported_beside_it(bench):
    bench.learn(0.001)
    bench.submit(1, 2, 3)
    bench.await_begin()
    bench.open.release()
    bench.await_begin()

    bench.pipe.send_bytes(FLUSH)

    bench.manager.until(lambda: bench.state(1) == "succeeded")
    bench.finish(2, 3)
