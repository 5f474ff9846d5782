"""Many jobs at once in one consumer, with a real worker."""

from __future__ import annotations

import collections
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from svc.domain.job import Cause
from svc.domain.lifecycle import JobState
from tests.support.asking import counts
from tests.support.memory_journals import reopened
from tests.support.workers import Client, Manager, Worker, one_consumer, options, until

TASKS = "tests.support.coroutine_tasks"


@pytest.fixture(scope="module")
def manager() -> Iterator[Manager]:
    with one_consumer(TASKS) as manager:
        yield manager


@pytest.fixture
def client(manager: Manager) -> Iterator[Client]:
    with manager.client() as found:
        found.results(found.submit(f"{TASKS}:at_once"))  # its consumer is there
        yield found


def noted(path: Path) -> list[tuple[str, int]]:
    """Return the jobs that have begun, each with its process."""
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [(job, int(process)) for job, process in (line.split() for line in lines)]


def test_a_thousand_waiting_jobs_take_one_consumer_about_as_long_as_one(client: Client) -> None:
    began = time.monotonic()
    ids = client.submit(f"{TASKS}:wait", *[(1.0,)] * 1000)
    assert client.results(ids) == ids  # each knows itself
    assert time.monotonic() - began < 60  # one after the other they take 1,000 s


def test_no_more_jobs_run_at_once_than_the_task_allows(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "noted"
    go = tmp_path / "go"
    ids = client.submit(f"{TASKS}:note", *[(str(path), 0.3, str(go))] * 120)
    until(lambda: len(noted(path)) >= 50)
    time.sleep(0.3)  # another one would have begun
    assert len(noted(path)) == 50
    go.touch()
    assert len(set(client.results(ids))) == 1


def test_no_job_of_another_kind_runs_beside_them_and_it_waits_for_no_later_one(
    client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "noted"
    first = client.submit(f"{TASKS}:note", *[(str(path), 0.3)] * 5)
    until(lambda: len(noted(path)) == 5)
    (other,) = client.submit(f"{TASKS}:at_once")
    later = client.submit(f"{TASKS}:note", *[(str(path), 0.0)] * 5)
    client.results([*first, other, *later])
    ended = {outcome.id: outcome.finished_at for outcome in client.outcomes([*first, other, *later])}
    assert max(ended[job] for job in first) <= ended[other] <= min(ended[job] for job in later)


@pytest.mark.parametrize("how", ["", "ignore"])
def test_a_timeout_ends_and_charges_its_own_job_alone(client: Client, tmp_path: Path, how: str) -> None:
    """Both tasks cannot run at once, so the others are of the same task."""
    late, *others = client.submit(f"{TASKS}:limited", (30.0, how), *[(0.1,)] * 10)
    assert client.results(others) == ["done"] * 10
    (outcome,) = client.outcomes([late])
    view = client.view(late)
    assert outcome.error is not None
    assert (outcome.state, outcome.error.type) == (JobState.DEAD, "TimedOut")
    assert [attempt.cause for attempt in view.attempts] == [Cause.TIMED_OUT]
    assert view.attempts[0].seconds < 25.0  # its timeout is 2 s, and its sleep 30 s
    assert not any(client.view(job).attempts for job in others)


def test_a_job_with_a_memory_limit_of_its_own_is_dead_at_once_and_the_others_run_on(
    client: Client, tmp_path: Path
) -> None:
    path, go = tmp_path / "noted", tmp_path / "go"
    others = client.submit(f"{TASKS}:note", *[(str(path), 0.0, str(go))] * 10)
    until(lambda: len(noted(path)) == 10)
    (limited,) = client.submit(f"{TASKS}:note", (str(path), 0.0), max_rss=1 << 30)
    (outcome,) = client.outcomes([limited])
    assert outcome.error is not None
    assert (outcome.state, outcome.error.type) == (JobState.DEAD, "ConfigurationError")
    go.touch()
    assert len(set(client.results(others))) == 1  # one process
    assert len(noted(path)) == 10


def test_a_soft_timeout_lets_a_job_return_a_result(client: Client) -> None:
    late, catches, quick = client.submit(f"{TASKS}:asked", (30.0,), (30.0, True), (0.0,))
    assert client.results([catches, quick]) == ["in time", "done"]
    (outcome,) = client.outcomes([late])
    assert outcome.error is not None
    assert (outcome.state, outcome.error.type) == (JobState.DEAD, "SoftTimeout")
    assert client.view(late).attempts[0].cause is Cause.TIMED_OUT


def test_a_job_that_blocks_the_loop_is_charged_alone_and_the_others_run_again(client: Client) -> None:
    blocking, *others = client.submit(f"{TASKS}:limited", (30.0, "block"), *[(0.1,)] * 10)
    (outcome,) = client.outcomes([blocking])
    assert (outcome.state, client.view(blocking).attempts[0].cause) == (JobState.DEAD, Cause.TIMED_OUT)
    assert client.view(blocking).attempts[0].seconds < 25.0
    assert client.results(others) == ["done"] * 10
    assert {client.view(job).failures for job in others} == {0}


@pytest.mark.parametrize(
    ("how", "error"),
    [
        ("raise", "ValueError"),
        ("give up", "GiveUp"),
        ("exit", "SystemExit"),
        ("exit in a task", "SystemExit"),
    ],
)
def test_an_odd_end_is_that_of_its_own_job_alone(client: Client, how: str, error: str) -> None:
    odd, *others = client.submit(f"{TASKS}:end_oddly", (how,), *[("",)] * 10, ("stop the loop",))
    (outcome,) = client.outcomes([odd])
    assert outcome.error is not None
    assert outcome.error.type == error
    assert client.results(others) == [None] * 11


def test_a_job_that_cancels_all_asyncio_tasks_does_not_end_its_consumer(client: Client) -> None:
    (before,) = client.results(client.submit(f"{TASKS}:at_once"))
    (odd,) = client.submit(f"{TASKS}:end_oddly", ("cancel all",))
    (outcome,) = client.outcomes([odd])
    assert outcome.error is not None
    assert outcome.error.type == "CancelledError"
    assert client.results(client.submit(f"{TASKS}:end_oddly", ("",))) == [None]
    assert client.results(client.submit(f"{TASKS}:at_once")) == [before]


@pytest.mark.slow
def test_a_restart_of_the_manager_is_not_noticed(tmp_path: Path) -> None:
    path = tmp_path / "noted"
    with one_consumer(TASKS) as own, own.client() as client:
        ids = client.submit(f"{TASKS}:note", *[(str(path), 2.0)] * 50)
        until(lambda: len(noted(path)) == 50)
        own.restart()
        client.results(ids)
        assert {client.view(job).interruptions for job in ids} == {0}
        assert len(noted(path)) == 50


def test_results_that_pile_up_while_the_manager_is_away_are_reported_in_parts(tmp_path: Path) -> None:
    """Together they are larger than any message; nothing is run again, and nothing in vain sent again."""
    path = tmp_path / "go"
    with one_consumer(TASKS) as own, own.client() as client:
        ids = client.submit(f"{TASKS}:weigh", *[(str(path), 9_000_000)] * 8)
        until(lambda: counts(client.broker).leased == 8)
        own.stop()
        path.touch()
        until(lambda: len(path.read_text(encoding="utf-8").splitlines()) == 8)
        own.journal = reopened(own.journal)
        own.start()
        assert [len(result) for result in client.results(ids)] == [9_000_000] * 8
        assert {client.view(job).interruptions for job in ids} == {0}


@pytest.mark.slow
def test_a_kill_runs_again_exactly_the_jobs_without_an_outcome(client: Client, tmp_path: Path) -> None:
    path, go, there = tmp_path / "noted", tmp_path / "go", tmp_path
    short = client.submit(f"{TASKS}:stay", *[(str(path), str(there))] * 200)
    client.results(short)
    long = client.submit(f"{TASKS}:stay", *[(str(path), str(go))] * 1000)
    until(lambda: len(noted(path)) == 1200)
    process = noted(path)[-1][1]
    os.kill(process, signal.SIGKILL)
    until(lambda: len(noted(path)) == 1201)
    assert all(view.suspect for view in client.broker.get(long))
    assert counts(client.broker).leased == 1  # each runs singly
    go.touch()
    at_once = set()

    def none_is_left() -> bool:
        count = counts(client.broker)
        at_once.add(count.leased)
        return not count.leased + count.ready

    until(none_is_left)
    assert at_once <= {0, 1}
    client.results([*short, *long])
    times = collections.Counter(job for job, _ in noted(path))
    assert {times[job] for job in short} == {1}
    assert {times[job] for job in long} == {2}
    views = client.broker.get(long)
    assert {(view.failures, view.crashes) for view in views} == {(0, 0)}
    assert not any(view.suspect for view in views)


def test_a_stop_lets_running_jobs_finish_and_takes_no_more(tmp_path: Path) -> None:
    manager = Manager()
    manager.start()
    worker = Worker(manager.address, options(1, tasks=(TASKS,)))
    worker.start()
    path = tmp_path / "noted"
    with manager.client() as client:
        go = tmp_path / "go"
        ids = client.submit(f"{TASKS}:note", *[(str(path), 0.0, str(go))] * 80)
        until(lambda: len(noted(path)) == 50)
        worker.signal(signal.SIGTERM)
        until(lambda: worker.events("worker_stopping"))
        go.touch()
        assert worker.wait() == 0
        states = collections.Counter(client.state(job) for job in ids)
        assert states == {"succeeded": 50, "ready": 30}
        assert {client.view(job).interruptions for job in ids} == {0}
    manager.stop()


def test_a_cancel_ends_its_own_job_alone(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "noted"
    go = tmp_path / "go"
    ids = client.submit(f"{TASKS}:note", *[(str(path), 0.0, str(go))] * 10)
    until(lambda: len(noted(path)) == 10)
    assert client.broker.cancel([ids[5]], running=True, grace=30.0) == 1
    (outcome,) = client.outcomes([ids[5]])
    assert outcome.state is JobState.CANCELLED
    go.touch()
    (other,) = client.submit(f"{TASKS}:note", (str(path), 0.0))
    assert len(set(client.results([*ids[:5], *ids[6:], other]))) == 1  # one process: none was killed
    assert len(noted(path)) == 11  # none ran a second time


def test_a_cancelled_job_that_goes_on_is_left_after_its_grace(client: Client) -> None:
    stubborn, *others = client.submit(f"{TASKS}:stubborn", (6.0,), *[(1.0,)] * 5)
    until(lambda: client.state(stubborn) == "leased")
    client.broker.cancel([stubborn], running=True, grace=0.3)
    assert client.results(others) == ["done"] * 5
    assert client.results(client.submit(f"{TASKS}:wait", (0.0,)))


@pytest.mark.parametrize("how", ["block", "hold the GIL"])
def test_a_cancel_of_a_job_that_blocks_the_loop_ends_the_consumer_after_the_grace(
    client: Client, tmp_path: Path, how: str
) -> None:
    """No job has a timeout, and the slot shows the oldest one, which is not the one that blocks."""
    path, go = tmp_path / "noted", tmp_path / "go"
    (older,) = client.submit(f"{TASKS}:stay", (str(path), str(go)))
    until(lambda: len(noted(path)) == 1)
    (blocking,) = client.submit(f"{TASKS}:stay", (str(path), str(go), how))
    until(lambda: len(noted(path)) == 2)
    assert client.broker.cancel([blocking], running=True, grace=0.3) == 1
    until(lambda: len(noted(path)) == 3, what="the older job runs again")
    again = client.view(older)
    assert (again.state, again.suspect, again.crashes, again.failures) == ("leased", True, 0, 0)
    (first, process), _, (third, successor) = noted(path)
    assert first == third == older
    assert process != successor
    go.touch()
    assert client.results([older]) == [successor]
    assert client.state(blocking) == "cancelled"
