"""Tasks that get lists of jobs, with a real worker."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from svc.domain import commands as c
from svc.domain.job import Cause, OutputStream
from svc.domain.lifecycle import JobState
from tests.integration.test_output import output
from tests.support.workers import Client, Manager, Worker, one_consumer, options, until

TASKS = "tests.support.list_tasks"


@pytest.fixture(scope="module")
def manager() -> Iterator[Manager]:
    with one_consumer(TASKS) as manager:
        yield manager


@pytest.fixture
def client(manager: Manager) -> Iterator[Client]:
    with manager.client() as found:
        found.results(found.submit(f"{TASKS}:plain", (1,)))  # its consumer is there
        yield found


def lists(path: Path) -> list[list[str]]:
    """Return the lists that have begun, each with the ids of its jobs."""
    return [line.split() for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def test_a_full_list_does_not_wait_and_each_job_has_its_own_outcome(client: Client) -> None:
    began = time.monotonic()
    ids = client.submit(f"{TASKS}:full", *[(number,) for number in range(100)])
    assert client.results(ids) == [[10, number] for number in range(100)]
    assert time.monotonic() - began < 30


def test_a_list_that_is_not_full_waits_for_more(client: Client) -> None:
    (first,) = client.submit(f"{TASKS}:three", ())
    until(lambda: client.state(first) == "leased")
    later = client.submit(f"{TASKS}:three", *[()] * 2)
    assert client.results([first, *later]) == [3, 3, 3]


def test_a_list_runs_after_its_linger(client: Client) -> None:
    began = time.monotonic()
    assert client.results(client.submit(f"{TASKS}:soon", ())) == [1]
    assert 0.5 < time.monotonic() - began < 25


def test_without_a_linger_a_list_has_what_there_is(client: Client) -> None:
    assert client.results(client.submit(f"{TASKS}:at_once", *[()] * 7)) == [7] * 7
    assert client.results(client.submit(f"{TASKS}:at_once", ())) == [1]


def test_a_job_of_another_task_that_is_first_in_turn_ends_the_wait(client: Client) -> None:
    (first,) = client.submit(f"{TASKS}:full", (0,))
    until(lambda: client.state(first) == "leased")
    began = time.monotonic()
    client.results(client.submit(f"{TASKS}:plain", (1,)))
    assert client.results([first]) == [[1, 0]]
    assert time.monotonic() - began < 25


def test_each_outcome_is_that_of_its_own_job(client: Client) -> None:
    kinds = [("value", 1), ("fail", "no"), ("give up", "never"), ("retry",), ("snooze",), ("unsendable",)]
    value, *others, last = client.submit(f"{TASKS}:each", *kinds, *[("value", 2)] * 4, retries=1)
    assert client.results([value, last]) == [1, 2]
    seen = [client.view(job) for job in others[:5]]
    assert [(view.state, view.failures) for view in seen] == [
        ("scheduled", 1),
        ("dead", 1),
        ("scheduled", 1),
        ("scheduled", 0),
        ("dead", 1),
    ]
    assert [view.attempts[-1].error.type for view in seen] == [
        "ValueError", "GiveUp", "Retry", "Snooze", "CodecError"
    ]  # fmt: skip
    for job in others:
        client.broker.cancel([job])


@pytest.mark.parametrize(
    ("how", "error", "said"),
    [
        ("raise", "ValueError", "all of you"),
        ("exit", "SystemExit", "3"),
        ("too few", "BadOutcomes", "returned a list of 9, and was to return a list of 10"),
        ("nothing", "BadOutcomes", "returned NoneType, and was to return a list of 10"),
        ("a text", "BadOutcomes", "returned str, and was to return a list of 10"),
    ],
)
def test_a_call_that_fails_or_returns_something_else_fails_all(
    client: Client, how: str, error: str, said: str
) -> None:
    ids = client.submit(f"{TASKS}:each", (how,), *[("value", 1)] * 9)
    for outcome in client.outcomes(ids):
        assert outcome.error is not None
        assert (outcome.state, outcome.error.type) == (JobState.DEAD, error)
        assert said in outcome.error.message


def test_a_coroutine_may_have_a_batch(client: Client) -> None:
    assert client.results(client.submit(f"{TASKS}:coroutine", *[(n,) for n in range(10)])) == [*range(1, 11)]


def test_each_job_knows_itself_and_reports_for_itself(client: Client) -> None:
    ids = client.submit(f"{TASKS}:known", *[(n,) for n in range(10)])
    said = "a task with a batch gets its jobs as its argument; use those"
    assert client.results(ids) == [[job, 1, f"{TASKS}:known", n, None, said] for n, job in enumerate(ids)]


def test_a_process_that_dies_in_a_list_gives_each_a_suspicion_and_each_runs_singly(
    client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "noted"
    deadly, *others = client.submit(f"{TASKS}:note", (str(path), 0.0, "die"), *[(str(path), 0.0)] * 4)
    client.results(others)
    client.outcomes([deadly])
    first, *later = lists(path)
    assert sorted(first) == sorted([deadly, *others])
    assert all(len(each) == 1 for each in later)
    assert [later.count([job]) for job in others] == [1] * 4
    assert {(client.view(job).failures, client.view(job).crashes) for job in others} == {(0, 0)}
    assert client.view(deadly).crashes > 0


def test_a_list_over_its_timeout_charges_nobody_and_each_runs_singly(client: Client) -> None:
    """Nothing tells which of its jobs takes so long, so each has to show that by itself."""
    late, *others = client.submit(f"{TASKS}:limited", (60.0,), *[(0.0,)] * 4)
    assert client.results(others) == [1] * 4
    (outcome,) = client.outcomes([late])
    assert outcome.error is not None
    assert (outcome.state, outcome.error.type) == (JobState.DEAD, "TimedOut")
    assert client.view(late).failures == 1
    assert {client.view(job).failures for job in others} == {0}


def test_the_limit_of_a_list_is_the_smallest_of_its_jobs(client: Client, tmp_path: Path) -> None:
    path = str(tmp_path / "noted")
    (short,) = client.submit(f"{TASKS}:note", (path, 0.0), timeout=3.0)
    until(lambda: client.state(short) == "leased")
    long = client.submit(f"{TASKS}:note", (path, 5.0), *[(path, 0.0)] * 3, timeout=60.0)
    pids = client.results([short, *long])
    assert len(lists(Path(path))) == 1 + 5  # killed, and each by itself
    assert len(set(pids)) == 1


def test_a_soft_timeout_fails_all(client: Client) -> None:
    ids = client.submit(f"{TASKS}:asked", *[()] * 5)
    for outcome, job in zip(client.outcomes(ids), ids, strict=True):
        assert outcome.error is not None
        assert (outcome.state, outcome.error.type) == (JobState.DEAD, "SoftTimeout")
        assert client.view(job).attempts[0].cause is Cause.TIMED_OUT


def test_a_job_that_is_cancelled_before_the_call_ends_so(client: Client) -> None:
    ids = client.submit(f"{TASKS}:full", *[(n,) for n in range(9)])
    until(lambda: {client.state(job) for job in ids} == {"leased"})
    assert client.broker.cancel([ids[0]], running=True) == 1
    (last,) = client.submit(f"{TASKS}:full", (9,))
    # Whether the order to take it out or the last job comes first is not known.
    assert {size for size, _ in client.results([*ids[1:], last])} <= {9, 10}
    assert client.state(ids[0]) == "cancelled"


def test_a_cancel_during_the_call_refuses_the_result_and_the_others_run_on(
    client: Client, tmp_path: Path
) -> None:
    path = tmp_path / "noted"
    ids = client.submit(f"{TASKS}:note", *[(str(path), 6.0)] * 5)
    until(lambda: len(lists(path)) == 1)
    assert client.broker.cancel(ids[:2], running=True, grace=0.1) == 2
    assert len(set(client.results(ids[2:]))) == 1
    assert [client.state(job) for job in ids[:2]] == ["cancelled"] * 2
    assert len(lists(path)) == 1


def test_a_cancel_of_all_jobs_of_a_list_ends_the_call(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "noted"
    ids = client.submit(f"{TASKS}:note", *[(str(path), 60.0)] * 5)
    until(lambda: len(lists(path)) == 1)
    began = time.monotonic()
    assert client.broker.cancel(ids, running=True, grace=30.0) == 5
    assert client.results(client.submit(f"{TASKS}:plain", (7,))) == [7]
    assert time.monotonic() - began < 30


def test_what_a_list_writes_is_kept_for_its_first_job(client: Client) -> None:
    ids = client.submit(f"{TASKS}:talk", *[()] * 3)
    client.results(ids)
    until(lambda: output(client, ids[0], OutputStream.STDOUT) == b"a list of 3\n", 30)
    assert [client.broker.logs(c.Logs(job)).attempts for job in ids[1:]] == [[], []]


@pytest.mark.parametrize("how", ["stop", "drain"])
def test_a_worker_that_stops_or_drains_does_not_wait_for_more_jobs(tmp_path: Path, how: str) -> None:
    manager = Manager()
    manager.start()
    worker = Worker(manager.address, options(1, tasks=(TASKS,)))
    worker.start()
    with manager.client() as client:
        (job,) = client.submit(f"{TASKS}:full", (1,))
        until(lambda: client.state(job) == "leased")
        began = time.monotonic()
        if how == "stop":
            worker.signal(signal.SIGTERM)
        else:
            client.broker.drain()
        assert worker.wait() == 0
        assert time.monotonic() - began < 25
        assert client.state(job) == ("ready" if how == "stop" else "succeeded")
        assert client.view(job).interruptions == 0
    manager.stop()


@pytest.mark.slow
def test_a_restart_of_the_manager_is_not_noticed(tmp_path: Path) -> None:
    path = tmp_path / "noted"
    with one_consumer(TASKS) as own, own.client() as client:
        ids = client.submit(f"{TASKS}:note", *[(str(path), 2.0)] * 5)
        until(lambda: len(lists(path)) == 1)
        own.restart()
        client.results(ids)
        assert {client.view(job).interruptions for job in ids} == {0}
        assert len(lists(path)) == 1


def test_several_consumers_share_the_jobs_and_each_runs_once(tmp_path: Path) -> None:
    own = Manager()
    own.start()
    worker = Worker(own.address, options(3, tasks=(TASKS,)))
    worker.start()
    path = tmp_path / "noted"
    with own.client() as client:
        ids = client.submit(f"{TASKS}:note", *[(str(path), 0.05)] * 200)
        client.results(ids)
    assert sorted(job for each in lists(path) for job in each) == sorted(ids)
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    own.stop()
