"""The consumer's loop with the real queue in memory; its supervisor is the test."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from svc.broker.local import LocalBroker, LocalQueue
from svc.codec import decode_result, encode_arguments
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.job import NewChunk, Terms, job_id
from svc.domain.job_view import JobView
from svc.errors import ManagerUnreachable
from svc.worker.consumer import Consumer
from svc.worker.options import WorkerOptions
from svc.worker.orders import FLUSH, REJOIN, STOP
from svc.worker.registry import Registry, Task, TaskOptions
from svc.worker.slot import Phase, Slot

SECONDS = 20.0


@dataclass
class Gate:
    """A task that tells when it has begun and waits until it may end."""

    begun: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    open: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def __call__(self, wait: bool = True) -> None:
        if wait:
            self.begun.release()
            assert self.open.acquire(timeout=SECONDS)


class Flaky(LocalBroker):
    """A broker whose next calls fail as if the manager were away; it remembers the requests."""

    def __init__(self, queue: LocalQueue, hello: Callable[[], c.Hello]) -> None:
        self.failures = 0
        #: Whether grants to who reports say that they came before the commit, as the manager's do.
        self.early = False
        self.asked: list[list[c.AnyCommand]] = []
        self.said = hello
        super().__init__(queue, hello)

    def call(self, commands: Sequence[c.AnyCommand], *, wait: float = 0.0) -> list[r.AnyReply]:
        if self.failures:
            self.failures -= 1
            raise ManagerUnreachable("away")
        self.asked.append(list(commands))
        replies = super().call(commands, wait=wait)
        if self.early and len(replies) > 1 and isinstance(replies[-1], r.Grant) and replies[-1].deliveries:
            replies[-1] = r.Grant(replies[-1].deliveries, early=True)
        return replies


class Bench:
    """One consumer in a thread, the queue that it serves, and the line to it."""

    def __init__(self) -> None:
        self.gate = Gate()
        self.queue = LocalQueue()
        self.client = LocalBroker(self.queue)
        context = multiprocessing.get_context("spawn")
        self.slot = Slot(context)
        self.pipe, self._theirs = multiprocessing.Pipe()
        self.brokers: list[Flaky] = []
        self.submitted = 0
        tasks = [Task("t:gate", self.gate), Task("t:echo", lambda x: x), Task("t:fail", self.fail)]
        tasks.append(Task("t:big", self.big))
        #: The arguments of the jobs that ran in lists, or beside others.
        self.ran: list[int] = []
        tasks.append(Task("t:list", self.listed, TaskOptions(batch=5)))
        tasks.append(Task("t:beside", self.beside, TaskOptions(concurrency=5)))
        options = WorkerOptions("w", "here", 1)
        self.consumer = Consumer(options, "w-1", Registry(tasks), self.slot, self._theirs, self.connect)
        self.thread = threading.Thread(target=self.consumer.run)

    def connect(self, hello: Callable[[], c.Hello]) -> Flaky:
        self.brokers.append(Flaky(self.queue, hello))
        return self.brokers[-1]

    def big(self, wait: bool) -> bytes:
        self.gate(wait)
        return bytes(600_000)

    def listed(self, jobs: list[Any]) -> list[None]:
        self.ran += [job.args[0] for job in jobs]
        return [None] * len(jobs)

    async def beside(self, number: int) -> None:
        self.ran.append(number)

    @staticmethod
    def fail() -> None:
        raise ValueError("bad")

    @property
    def broker(self) -> Flaky:
        return self.brokers[-1]

    def submit(self, task: str, *argses: tuple[Any, ...], **terms: Any) -> list[str]:
        bodies = [encode_arguments("plain", args, {}) for args in argses or [()]]
        self.client.submit("o", [NewChunk(self.submitted, Terms(task, **terms), bodies)])
        self.submitted += len(bodies)
        return [job_id("o", number) for number in range(self.submitted - len(bodies), self.submitted)]

    def results(self, ids: list[str]) -> list[Any]:
        reply = self.client.call([c.Await(ids, SECONDS)], wait=SECONDS)[0]
        assert isinstance(reply, r.Outcomes)
        assert reply.pending == 0
        return [decode_result(each.result) if not each.error else each.error.type for each in reply.outcomes]

    def view(self, job: str) -> JobView:
        return self.client.get([job])[0]

    def warm_up(self) -> None:
        """Let it learn that jobs are short, so that it reads ahead, however slow this machine is just now."""
        self.results(self.submit("t:echo", *[(0,)] * 200))
        for task in ("t:echo", "t:gate", "t:big", "t:list", "t:beside") * 50:
            self.queue.host.state.run_times.ran(task, 100, 0.0001)

    def stop(self) -> None:
        self.pipe.send_bytes(STOP)
        assert self.consumer._stopping.wait(SECONDS)
        for _ in range(100):
            self.gate.open.release()
        self.thread.join(SECONDS)
        assert not self.thread.is_alive()


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    bench.thread.start()
    yield bench
    bench.stop()
    bench.queue.close()
    bench.pipe.close()


def begun(bench: Bench) -> None:
    assert bench.gate.begun.acquire(timeout=SECONDS)


def test_jobs_are_run_in_order_and_answered(bench: Bench) -> None:
    assert bench.results(bench.submit("t:echo", *[(n,) for n in range(50)])) == list(range(50))


def test_successes_of_one_lease_travel_as_one_ack(bench: Bench) -> None:
    bench.warm_up()
    assert any(
        isinstance(each, c.Ack) and len(each.results) > 5 for asked in bench.broker.asked for each in asked
    )


def test_it_waits_long_at_the_manager_only_when_all_is_reported(bench: Bench) -> None:
    bench.results(bench.submit("t:echo", (1,)))
    waits = [
        (len(asked), last.wait) for asked in bench.broker.asked if isinstance(last := asked[-1], c.Lease)
    ]
    alone = {wait for commands, wait in waits if commands == 1}
    assert len(alone) == 1
    assert max((wait for commands, wait in waits if commands > 1), default=0.0) <= 0.1 < min(alone)


def test_a_failure_is_reported_with_the_time_to_the_next_attempt(bench: Bench) -> None:
    bench.results(bench.submit("t:fail", retries=1, backoff=0.01))
    nacks = [each for asked in bench.broker.asked for each in asked if isinstance(each, c.Nack)]
    first, last = nacks
    assert first.retry_in is not None
    assert 0.005 <= first.retry_in <= 0.01
    assert last.retry_in is None


def test_told_to_stop_it_leaves_its_wait(bench: Bench) -> None:
    bench.results(bench.submit("t:echo", (1,)))
    bench.stop()
    assert bench.slot.look().phase is Phase.STOPPING
    assert isinstance(bench.broker.asked[-1][-1], c.Leave)
    assert bench.client.stats().consumers == 0


def test_told_to_stop_without_a_manager_it_leaves_with_no_goodbye(bench: Bench) -> None:
    bench.results(bench.submit("t:echo", (1,)))
    bench.broker.failures = 1_000_000
    bench.stop()
    assert bench.slot.look().phase is Phase.UNTOLD


def test_told_to_stop_without_a_manager_it_keeps_on_telling_its_outcome(bench: Bench) -> None:
    (job,) = bench.submit("t:gate")
    begun(bench)
    bench.broker.failures = 5
    bench.stop()
    assert bench.broker.failures == 0
    assert bench.slot.look().phase is Phase.STOPPING
    assert (bench.view(job).state, bench.view(job).attempts) == ("succeeded", [])


def test_told_to_stop_it_tells_an_outcome_that_may_not_be_on_record(bench: Bench) -> None:
    """The manager had answered it before the commit, and has gone since."""
    bench.results(bench.submit("t:echo", (0,)))
    bench.broker.early = True
    first, second = bench.submit("t:gate", (True,), (True,))
    begun(bench)
    bench.gate.open.release()
    begun(bench)
    bench.consumer._holdings.drop(bench.slot.look().token, 2)  # as a cancel does: only the first is left
    assert bench.consumer._requests.owed
    bench.stop()
    assert bench.results([first, second]) == [None, None]
    assert not bench.consumer._requests.owed


def test_told_to_stop_it_finishes_its_job_and_gives_back_what_it_read_ahead(bench: Bench) -> None:
    bench.warm_up()
    jobs = bench.submit("t:gate", (True,), *[(False,)] * 20)
    begun(bench)
    held = bench.slot.look().ahead
    assert held > 0
    bench.stop()
    states = [bench.view(job).state for job in jobs]
    assert states == ["succeeded"] + ["ready"] * 20
    assert not any(bench.view(job).interruptions for job in jobs)


def test_the_pill_of_a_drain_ends_it(bench: Bench) -> None:
    bench.results(bench.submit("t:echo", (1,)))
    bench.client.drain()
    bench.thread.join(SECONDS)
    assert bench.slot.look().phase is Phase.DRAINED


def test_what_is_taken_back_is_dropped_and_the_rest_goes_on(bench: Bench) -> None:
    bench.warm_up()
    jobs = bench.submit("t:gate", (True,), *[(False,)] * 10)
    begun(bench)
    look = bench.slot.look()
    with bench.slot.held():
        bench.slot.recall()
    supervisor = LocalBroker(bench.queue, lambda: c.Hello(1, "worker", "w", "w"))
    supervisor.call([c.Recall("w-1", look.token, look.number, look.last)])
    assert [bench.view(job).state for job in jobs] == ["leased"] + ["ready"] * 10
    bench.gate.open.release()
    bench.results(jobs)
    assert not any(bench.view(job).attempts for job in jobs)


@pytest.mark.parametrize("task", ["t:list", "t:beside"])
def test_jobs_of_many_at_once_that_are_taken_back_run_once(bench: Bench, task: str) -> None:
    bench.warm_up()
    # In one grant: a job that takes long, and others behind it.
    long, many = Terms("t:gate"), Terms(task)
    bodies = [encode_arguments("plain", (number,), {}) for number in range(4)]
    bench.client.submit(
        "p", [NewChunk(0, long, [encode_arguments("plain", (True,), {})]), NewChunk(1, many, bodies)]
    )
    begun(bench)
    look = bench.slot.look()
    assert look.ahead == 4
    with bench.slot.held():
        bench.slot.recall()
    supervisor = LocalBroker(bench.queue, lambda: c.Hello(1, "worker", "w", "w"))
    supervisor.call([c.Recall("w-1", look.token, look.number, look.last)])
    bench.gate.open.release()
    bench.results([job_id("p", number) for number in range(5)])
    assert sorted(bench.ran) == [0, 1, 2, 3]
    assert not bench.slot.look().recalled


def test_told_to_flush_it_reports_what_is_done_while_a_job_runs(bench: Bench) -> None:
    bench.warm_up()
    jobs = bench.submit("t:gate", *[(False,)] * 5, (True,))
    begun(bench)
    bench.pipe.send_bytes(FLUSH)
    bench.results(jobs[:5])
    assert bench.view(jobs[5]).state == "leased"


def test_told_to_rejoin_it_says_what_it_holds_while_a_job_runs(bench: Bench) -> None:
    (job,) = bench.submit("t:gate")
    begun(bench)
    calls = len(bench.broker.asked)
    bench.pipe.send_bytes(REJOIN)
    bench.pipe.send_bytes(FLUSH)
    while len(bench.broker.asked) == calls:
        pass
    assert isinstance(bench.broker.asked[calls][0], c.Ping)
    (held,) = bench.broker.said().held
    assert (held.first, held.count) == (0, 1)
    bench.gate.open.release()
    bench.results([job])


def test_outcomes_are_kept_while_the_manager_is_away(bench: Bench) -> None:
    (job,) = bench.submit("t:gate")
    begun(bench)
    bench.broker.failures = 3
    bench.gate.open.release()
    bench.results([job])
    assert bench.broker.failures == 0
    assert bench.view(job).attempts == []


def test_what_may_not_be_on_record_is_still_named_to_a_new_connection(bench: Bench) -> None:
    """Else a manager that died before the commit would run it again."""
    bench.results(bench.submit("t:echo", (0,)))
    bench.broker.early = True
    first, second = bench.submit("t:gate", (True,), (True,))
    for _ in range(2):
        begun(bench)
        named = [(held.first, held.count) for held in bench.broker.said().held]
        bench.gate.open.release()
    bench.results([first, second])
    assert named == [(1, 1), (2, 1)]

    bench.results(bench.submit("t:echo", (1,), (2,)))
    bench.stop()
    assert bench.broker.said().held == []


def test_results_do_not_pile_up_while_the_manager_is_away(bench: Bench) -> None:
    """One message has to hold all that is unsent, so that with large results the next job waits."""
    bench.warm_up()
    jobs = bench.submit("t:big", (True,), *[(False,)] * 6)
    begun(bench)
    bench.broker.failures = 4
    bench.gate.open.release()
    bench.results(jobs)
    acks = [each for asked in bench.broker.asked for each in asked if isinstance(each, c.Ack)]
    assert max(sum(map(len, ack.results)) for ack in acks) < 2_000_000


def test_an_outcome_that_comes_too_late_is_dropped(bench: Bench) -> None:
    """The lease moved on; the job belongs to someone else, and the consumer goes on."""
    (job,) = bench.submit("t:gate")
    begun(bench)
    look = bench.slot.look()
    LocalBroker(bench.queue, lambda: c.Hello(1, "worker", "w", "w")).call(
        [c.Release(look.token, look.number)]
    )
    bench.gate.open.release()
    begun(bench)
    bench.gate.open.release()
    assert bench.results([job]) == [None]
    assert bench.results(bench.submit("t:echo", (5,))) == [5]


def test_a_job_with_a_timeout_nudges_the_supervisor(bench: Bench) -> None:
    bench.results(bench.submit("t:echo", (1,)))
    assert not bench.pipe.poll()
    bench.results(bench.submit("t:echo", (1,), timeout=60.0))
    assert bench.pipe.poll(SECONDS)


def test_its_hello_says_what_it_can_do(bench: Bench) -> None:
    bench.results(bench.submit("t:echo", (1,)))
    hello = bench.broker.said()
    assert (hello.role, hello.name, hello.worker, hello.queues) == ("consumer", "w-1", "w", ["default"])
    assert hello.tasks == sorted(["svc:call", "t:beside", "t:big", "t:echo", "t:fail", "t:gate", "t:list"])
