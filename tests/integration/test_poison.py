"""Jobs that take their worker down end as dead, and the jobs behind them are done."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from svc.domain.job_view import JobView
from svc.domain.limits import Limits
from tests.support.workers import Client, Manager, Worker, options

TASKS = "tests.support.poison_tasks"
BUDGET = Limits().suspicion_budget
GOOD = 40


class Restarting:
    """A worker that is started again whenever it has ended, as by Compose or systemd."""

    def __init__(self, manager: Manager, name: str, consumers: int) -> None:
        self._manager = manager
        self._options = options(consumers, name=name, tasks=(TASKS,), grace=1.0)
        self._ending = False
        self._starting = threading.Lock()
        self.workers: list[Worker] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """How many have ended so far."""
        return len(self.workers) - 1

    def consumers_lost(self) -> int:
        events = ("consumer_died", "consumer_killed")
        return sum(len(worker.events(event)) for worker in self.workers for event in events)

    def _run(self) -> None:
        while worker := self._next():
            worker.process.wait()

    def _next(self) -> Worker | None:
        with self._starting:
            if self._ending:
                return None
            worker = Worker(self._manager.address, self._options)
            worker.start()
            self.workers.append(worker)
            return worker

    def end(self) -> None:
        with self._starting:
            self._ending = True
        for worker in self.workers:
            worker.end()
        self._thread.join(30)
        assert not self._thread.is_alive()


@pytest.fixture
def manager() -> Iterator[Manager]:
    manager = Manager()
    manager.start()
    yield manager
    manager.stop()


@pytest.fixture
def client(manager: Manager) -> Iterator[Client]:
    with manager.client() as client:
        yield client


@pytest.fixture
def worker(manager: Manager) -> Iterator[Restarting]:
    worker = Restarting(manager, "w", 2)
    yield worker
    worker.end()


def poisoned(client: Client, task: str, *args: Any) -> JobView:
    """Submit a job with good ones behind it; return it once all have ended, the good ones with results."""
    (poison,) = client.submit(f"{TASKS}:{task}", args)
    good = client.submit(f"{TASKS}:good", *[(number,) for number in range(GOOD)])
    assert client.results(good, 60) == list(range(GOOD))
    client.outcomes([poison], 60)
    assert [view.crashes for view in client.broker.get(good)] == [0] * GOOD
    assert max(view.suspicions for view in client.broker.get(good)) <= 1
    return client.view(poison)


@pytest.mark.slow
def test_a_job_that_kills_its_worker_is_dead_after_six_workers(client: Client, worker: Restarting) -> None:
    view = poisoned(client, "end_worker")

    assert (view.state, view.suspicions) == ("dead", BUDGET)
    assert view.attempts[-1].error.type == "WorkerLost"
    assert [attempt.number for attempt in view.attempts] == list(range(1, len(view.attempts) + 1))
    assert worker.lost <= BUDGET + 1


@pytest.mark.slow
@pytest.mark.parametrize("task", ["close_descriptors", "close_descriptors_and_sleep", "close_all"])
def test_a_job_that_closes_its_consumers_descriptors_is_dead_after_a_few_consumers(
    client: Client, worker: Restarting, task: str
) -> None:
    view = poisoned(client, task)

    assert view.state == "dead"
    assert (
        "as its pipes and connections were closed; a task may close only" in view.attempts[-1].error.message
    )
    assert worker.consumers_lost() <= BUDGET + 1
    assert worker.lost == 0


def test_a_job_that_allows_no_descriptors_has_crashed(client: Client, worker: Restarting) -> None:
    view = poisoned(client, "allow_no_descriptors")

    assert (view.state, view.crashes, view.suspicions) == ("dead", 3, 0)
    assert "as it could open no more descriptors" in view.attempts[-1].error.message
    assert len(worker.workers[0].events("descriptors_exhausted")) == 3
    assert worker.lost == 0


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGABRT, signal.SIGSEGV])
def test_a_job_that_kills_its_parent_is_dead_with_that_cause(
    client: Client, worker: Restarting, number: int
) -> None:
    view = poisoned(client, "signal_parent", number)

    assert (view.state, view.suspicions) == ("dead", BUDGET)
    assert view.attempts[-1].how == "suspected"
    assert view.attempts[-1].error.type == "WorkerLost"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "args"),
    [
        ("overwrite_shared_memory", ()),
        ("write_to_pipes", (b"\xff" * 5000,)),  # a length that no message has
        ("write_to_pipes", (b"\0\0\0\2p\xc1",)),  # a report that cannot be decoded
    ],
)
def test_a_job_that_damages_what_its_consumer_shares_is_dead_and_the_worker_goes_on(
    client: Client, worker: Restarting, task: str, args: tuple[Any, ...]
) -> None:
    view = poisoned(client, task, *args)

    assert view.state == "dead"
    killed = [line["reason"] for each in worker.workers for line in each.events("consumer_killed")]
    assert set(killed) == {"damaged"}
    assert worker.consumers_lost() <= BUDGET + 1
    assert worker.lost == 0


@pytest.mark.parametrize("content", [b"\0", b"\1\2\3"])
def test_a_job_that_writes_a_part_of_a_message_is_ended_by_its_timeout_as_any_other(
    client: Client, worker: Restarting, content: bytes
) -> None:
    (poison,) = client.submit(f"{TASKS}:write_to_pipes", (content,), timeout=0.5, retries=0)
    client.outcomes([poison], 60)

    assert client.view(poison).attempts[-1].error.type == "TimedOut"
    (good,) = client.submit(f"{TASKS}:good", (1,))
    assert client.results([good], 60) == [1]
    assert worker.lost == 0


def test_a_job_cannot_take_away_the_memory_that_its_consumer_shares(
    client: Client, worker: Restarting
) -> None:
    view = poisoned(client, "truncate_shared_memory")

    assert (view.state, view.crashes, view.suspicions) == ("succeeded", 0, 0)
    assert (worker.lost, worker.consumers_lost()) == (0, 0)


@pytest.mark.parametrize("task", ["signal_worker", "signal_worker_from_a_child"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_job_that_tells_its_worker_to_stop_has_crashed_and_the_worker_goes_on(
    client: Client, worker: Restarting, task: str, number: int
) -> None:
    view = poisoned(client, task, number)

    assert (view.state, view.crashes, view.suspicions) == ("dead", 3, 0)
    assert view.attempts[-1].error.type == "StopSignalSent"
    assert worker.lost == 0
