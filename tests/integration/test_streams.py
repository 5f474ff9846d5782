"""Generators in real workers: what a reader sees while they run, are stopped, and are killed."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from svc import JobCancelled, JobFailed, StreamRestarted
from svc.broker.manager import ManagerBroker
from svc.client.client import BrokerClient
from svc.client.submitter import Job
from svc.domain import events as e
from svc.domain.limits import Limits
from tests.support.clock import LeapingClock
from tests.support.memory_journals import reopened
from tests.support.workers import KEY, Manager, Start, Worker, descendants, options, until

TASKS = "tests.support.generator_tasks"
MODULES = (TASKS, "tests.support.worker_tasks")
#: Seconds for something that takes a second or two if the machine has nothing else to do.
PATIENCE = 60.0
#: Partial results that take so long that a kill comes before the last one.
FLOW = 5000


def client_of(manager: Manager) -> BrokerClient:
    return BrokerClient(lambda: ManagerBroker(manager.address, KEY, timeout=30.0))


@pytest.fixture(scope="module")
def shared() -> Iterator[BrokerClient]:
    """A client whose jobs go to a worker with two consumers, which several tests share."""
    manager = Manager()
    manager.start()
    worker = Worker(manager.address, options(2, tasks=MODULES))
    worker.start()
    with client_of(manager) as client:
        yield client
    worker.end()
    manager.stop()


@pytest.fixture
def client(manager: Manager) -> Iterator[BrokerClient]:
    with client_of(manager) as client:
        yield client


def task(name: str) -> str:
    return f"{TASKS}:{name}"


class Reading:
    """Reads a stream in a thread of its own; keeps what came, and how it ended."""

    def __init__(self, job: Job) -> None:
        self.seen: list[Any] = []
        self.error: BaseException | None = None
        self._stream = job.stream()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            for value in self._stream:
                self.seen.append(value)
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    def end(self) -> BaseException | None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        return self.error


def attempt_reached(job: Job, number: int) -> Callable[[], bool]:
    return lambda: len(job.view().attempts) >= number


# --- while it runs --------------------------------------------------------------------------------------


def test_partial_results_are_read_while_the_generator_goes_on(shared: BrokerClient, tmp_path: Path):
    go = tmp_path / "go"
    job = shared.submit(task("at_signal"), str(go), 3)
    stream = job.stream(timeout=PATIENCE)
    assert [next(stream) for _ in range(3)] == [0, 1, 2]
    assert not job.done()
    go.touch()
    assert list(stream) == ["after"]
    assert job.result(PATIENCE) is None


@pytest.mark.parametrize("name", ["count", "count_async"])
def test_many_partial_results_take_few_events(
    name: str, manager: Manager, client: BrokerClient, start: Start
):
    start(1, tasks=MODULES)
    job = client.submit(task(name), 20_000)
    assert list(job.stream(timeout=PATIENCE)) == list(range(20_000))
    rows = [event for _, event in manager.journal.replay() if isinstance(event, e.Yielded)]
    assert sum(len(event.values) for event in rows) == 20_000
    assert len(rows) < 5000  # a slow machine takes more time, and so more events


def test_generators_beside_other_jobs_end_with_their_results(shared: BrokerClient):
    jobs = [shared.submit(task("count"), number) for number in range(20)]
    plain = [shared.submit("tests.support.worker_tasks:pid") for _ in range(20)]
    assert [job.result(PATIENCE) for job in jobs] == [sum(range(number)) for number in range(20)]
    assert [list(job.stream()) for job in jobs] == [list(range(number)) for number in range(20)]
    assert all(job.result(PATIENCE) for job in plain)


def test_the_current_job_reports_from_within(shared: BrokerClient):
    job = shared.submit(task("about_itself"))
    assert list(job.stream(timeout=PATIENCE)) == [job.id, job.id, "half"]


def test_what_a_forked_child_yields_is_no_partial_result(shared: BrokerClient):
    assert list(shared.submit(task("forks")).stream(timeout=PATIENCE)) == ["before", 7]


# --- stopped --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pause", [0.0, 0.2])
@pytest.mark.parametrize("name", ["endless", "endless_async"])
def test_a_cancel_ends_a_generator_that_never_ends(
    name: str, pause: float, manager: Manager, client: BrokerClient, tmp_path: Path
):
    notes = tmp_path / "notes"
    worker = Worker(manager.address, options(1, tasks=MODULES), environment={"SVC_TEST_NOTES": str(notes)})
    worker.start()
    try:
        job = client.submit(task(name), pause)
        reading = Reading(job)
        until(lambda: len(reading.seen) > 3, PATIENCE)
        assert job.cancel(grace=30.0)
        assert isinstance(reading.end(), JobCancelled)
        assert reading.seen == list(range(len(reading.seen)))
        until(lambda: notes.exists() and notes.read_text() == "cancelled", PATIENCE)
        assert client.submit(task("count"), 3).result(PATIENCE) == 3
    finally:
        worker.end()


@pytest.mark.parametrize("name", ["endless", "endless_async"])
def test_a_soft_timeout_ends_a_generator_that_never_ends(name: str, shared: BrokerClient):
    job = shared.options(soft_timeout=1.0).submit(task(name), 0.01)
    reading = Reading(job)
    assert isinstance(reading.end(), JobFailed)
    assert "SoftTimeout" in str(reading.error)
    assert reading.seen == list(range(len(reading.seen)))
    assert reading.seen


def test_a_generator_may_end_well_at_its_soft_timeout(shared: BrokerClient):
    job = shared.options(soft_timeout=0.5).submit(task("endless"), 0.01, caught=True)
    *numbers, last = list(job.stream(timeout=PATIENCE))
    assert (numbers, last) == (list(range(len(numbers))), "the last")
    assert job.result(PATIENCE) in (len(numbers), len(numbers) - 1)


def test_a_timeout_ends_a_generator_that_never_ends(shared: BrokerClient):
    job = shared.options(timeout=0.5).submit(task("endless"), 0.0)
    reading = Reading(job)
    assert isinstance(reading.end(), JobFailed)
    assert reading.seen == list(range(len(reading.seen)))


def test_a_bound_ends_a_generator_that_never_ends(start: Start):
    manager = Manager(Limits(stream_values=1000))
    manager.start()
    worker = Worker(manager.address, options(1, tasks=MODULES))
    worker.start()
    try:
        with client_of(manager) as client:
            reading = Reading(client.submit(task("endless"), 0.0))
            assert "StreamTooLong: partial result 1000" in str(reading.end())
            assert reading.seen == list(range(1000))
    finally:
        worker.end()
        manager.stop()


# --- the manager goes away ------------------------------------------------------------------------------


def test_a_stream_goes_on_after_a_restart_of_the_manager(
    manager: Manager, client: BrokerClient, start: Start, tmp_path: Path
):
    start(1, tasks=MODULES)
    go = tmp_path / "go"
    job = client.submit(task("at_signal"), str(go), 5)
    reading = Reading(job)
    until(lambda: len(reading.seen) == 5, PATIENCE)
    manager.stop()
    go.touch()
    time.sleep(0.3)  # the partial result is given while the manager is away
    manager.journal = reopened(manager.journal)
    manager.start()
    assert reading.end() is None
    assert reading.seen == [0, 1, 2, 3, 4, "after"]
    assert list(job.stream()) == reading.seen


def test_a_generator_waits_while_the_manager_is_away_and_much_waits(
    manager: Manager, client: BrokerClient, start: Start, tmp_path: Path
):
    worker = start(1, tasks=MODULES)
    go = tmp_path / "go"
    job = client.submit(task("heavy"), str(go), 200, 200_000)
    stream = job.stream(timeout=PATIENCE)
    assert len(next(stream)) == 200_000
    (consumer,) = [pid for pid in descendants(worker.process.pid) if _is_consumer(pid)]
    before = _rss(consumer)
    manager.stop()
    go.touch()
    assert _until_settled(lambda: _rss(consumer)) - before < 10_000_000  # of the 40 MB that it gives in all
    manager.journal = reopened(manager.journal)
    manager.start()
    assert [len(value) for value in stream] == [200_000] * 199


def _is_consumer(pid: int) -> bool:
    return not Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _until_settled(measure: Callable[[], int]) -> int:
    last = measure()
    for _ in range(100):
        time.sleep(0.1)
        found = measure()
        if found == last:
            return found
        last = found
    raise AssertionError("it grows")


# --- killed ---------------------------------------------------------------------------------------------


def test_after_a_kill_in_the_middle_a_reader_gets_a_prefix_and_hears_of_the_new_stream(
    manager: Manager, client: BrokerClient, start: Start, tmp_path: Path
):
    start(1, tasks=MODULES)
    kill = tmp_path / "kill"
    job = client.submit(task("dies"), 30, str(kill))
    first = Reading(job)
    until(lambda: len(first.seen) == 30, PATIENCE)
    kill.touch()
    assert job.result(PATIENCE) is None
    error = first.end()
    assert isinstance(error, StreamRestarted)
    assert (error.job_id, error.number, error.attempt) == (job.id, 2, 2)
    assert first.seen == [[1, number] for number in range(30)]
    assert list(job.stream()) == [[2, number] for number in range(30)]


@pytest.mark.parametrize("whole", [False, True], ids=["consumer", "worker"])
def test_what_was_read_before_a_kill_at_any_moment_is_a_prefix(
    whole: bool, manager: Manager, client: BrokerClient, start: Start
):
    """The processes are killed while partial results flow, and not at a place that the task has chosen."""
    worker = start(1, tasks=MODULES)
    job = client.submit(task("flows"), FLOW)
    reading = Reading(job)
    until(lambda: len(reading.seen) >= 50, PATIENCE)
    below = descendants(worker.process.pid)
    pids = [worker.process.pid, *below] if whole else [pid for pid in below if _is_consumer(pid)]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    kept = list(job_values(manager, job.id))
    if whole:
        start(1, name="other", tasks=MODULES)
    assert job.result(PATIENCE) == FLOW
    assert isinstance(reading.end(), StreamRestarted)
    assert reading.seen == [[1, number] for number in range(len(reading.seen))]
    assert len(reading.seen) <= len(kept) or not whole
    attempt = job.stream().__next__()[0]
    assert attempt > 1
    assert list(job.stream()) == [[attempt, number] for number in range(FLOW)]


def job_values(manager: Manager, job: str) -> Iterator[bytes]:
    """Yield the partial results of a job that are in the journal."""
    number = int(job.rpartition("-")[2])
    for _, event in list(manager.journal.replay()):
        if isinstance(event, e.Yielded) and event.number == number:
            yield from event.values


def test_a_generator_that_has_lost_its_lease_is_told_at_the_yield(tmp_path: Path):
    """A whole worker is stopped for longer than a lease lasts, by the manager's clock, and goes on."""
    clock = LeapingClock()
    manager = Manager(Limits(lease_seconds=600.0), clock=clock)
    manager.start()
    worker, other = (Worker(manager.address, options(1, name=name, tasks=MODULES)) for name in ("w", "other"))
    worker.start()
    stopped: list[int] = []
    try:
        with client_of(manager) as client:
            job = client.submit(task("until_lost"), str(tmp_path / "error"))
            stream = job.stream(timeout=PATIENCE)
            assert next(stream) == 1
            stopped = [worker.process.pid, *descendants(worker.process.pid)]
            for pid in stopped:
                os.kill(pid, signal.SIGSTOP)
            until(lambda: _expired(job, clock), PATIENCE)
            other.start()
            assert job.result(PATIENCE) == "the second attempt"
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
            error = tmp_path / "error"
            until(lambda: error.exists() and error.read_text(), PATIENCE)
            assert error.read_text() == "LeaseLost"
            with pytest.raises(StreamRestarted):
                list(stream)
            assert list(job.stream()) == [2]
    finally:
        worker.end()
        other.end()
        manager.stop()


def _expired(job: Job, clock: LeapingClock) -> bool:
    clock.advance(1000.0)
    return job.view().state != "leased"
