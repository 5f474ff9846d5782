"""A real worker (its own processes, signals and sockets) with a real manager."""

from __future__ import annotations

import functools
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from svc.domain import commands as c
from svc.domain.job import CALL, Cause
from svc.domain.lifecycle import JobState
from svc.worker.cpu import CpuCount
from svc.worker.supervisor import Supervisor
from tests.support.processes import alive
from tests.support.workers import (
    KEY,
    Client,
    Manager,
    Start,
    Worker,
    configure_logging,
    connect,
    options,
    until,
    warm_up,
)


@pytest.fixture(scope="module")
def shared() -> Iterator[Manager]:
    """A manager with two workers, for all tests that leave them as they found them."""
    manager = Manager()
    manager.start()
    manager.workers = {
        "pair": Worker(manager.address, options(2, name="pair", queues=("pair",)), "warning"),
        "single": Worker(
            manager.address, options(1, name="single", queues=("single",), accept=("plain", "pickle"))
        ),
    }
    for worker in manager.workers.values():
        worker.start()
    yield manager
    for worker in manager.workers.values():
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
    manager.stop()


@pytest.fixture
def pair(shared: Manager) -> Iterator[Client]:
    """A client whose jobs go to a worker with two consumers."""
    with shared.client("pair") as client:
        yield client


@pytest.fixture
def single(shared: Manager) -> Iterator[Client]:
    """A client whose jobs go to a worker with one consumer, which accepts pickles."""
    with shared.client("single") as client:
        yield client


# --- outcomes ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
def test_results_are_recorded_in_the_order_of_the_jobs(
    client: Client, start: Start, start_method: str
) -> None:
    start(start_method=start_method)
    assert client.results(client.submit("echo", *[(n,) for n in range(500)])) == list(range(500))


def test_a_coroutine_is_run_to_its_end(single: Client) -> None:
    assert single.results(single.submit("later", (1,))) == [2]


def test_a_failing_job_is_tried_again_until_it_succeeds(pair: Client, tmp_path: Path) -> None:
    (job,) = pair.submit("fail_until", (str(tmp_path / "times"), 2))
    assert pair.results([job]) == [3]
    view = pair.view(job)
    assert (view.failures, view.crashes, view.interruptions) == (2, 0, 0)
    assert [attempt.error.message for attempt in view.attempts] == ["failure 1", "failure 2"]
    assert "fail_until" in view.attempts[0].error.traceback
    assert "service/svc/worker" not in view.attempts[0].error.traceback


def test_a_job_is_dead_when_its_retries_are_used_up(pair: Client, tmp_path: Path) -> None:
    (job,) = pair.submit("fail_until", (str(tmp_path / "times"), 9))
    (outcome,) = pair.outcomes([job])
    assert (outcome.state, pair.view(job).failures) == (JobState.DEAD, 3)


def test_the_terms_of_a_job_override_the_retries_of_its_task(pair: Client, tmp_path: Path) -> None:
    (job,) = pair.submit("fail_until", (str(tmp_path / "times"), 9), retries=0)
    pair.outcomes([job])
    assert pair.view(job).failures == 1


def test_a_task_says_itself_when_it_is_tried_again(pair: Client, tmp_path: Path) -> None:
    """Its backoff of 30 s would be too long for this test."""
    ways = ("snooze", "retry", "snooze", "snooze", "retry")
    (job,) = pair.submit("end_by", (str(tmp_path / "times"), *ways))
    assert pair.results([job]) == ["done"]
    view = pair.view(job)
    assert [attempt.how for attempt in view.attempts] == [
        {"retry": "failed", "snooze": "snoozed"}[way] for way in ways
    ]
    assert (view.failures, view.crashes) == (2, 0)


def test_a_task_that_asks_for_a_retry_uses_up_its_retries(pair: Client, tmp_path: Path) -> None:
    (job,) = pair.submit("end_by", (str(tmp_path / "times"), *["retry"] * 9))
    (outcome,) = pair.outcomes([job])
    assert (outcome.state, pair.view(job).failures) == (JobState.DEAD, 3)


def test_a_task_that_gives_up_is_dead_with_retries_left(pair: Client, tmp_path: Path) -> None:
    (job,) = pair.submit("end_by", (str(tmp_path / "times"), "give up"))
    (outcome,) = pair.outcomes([job])
    assert outcome.error is not None
    assert (outcome.error.type, outcome.error.message, pair.view(job).failures) == ("GiveUp", "enough", 1)


def test_a_delay_that_is_none_is_a_failure_of_the_attempt(pair: Client, tmp_path: Path) -> None:
    (job,) = pair.submit("end_by", (str(tmp_path / "times"), "bad delay"), retries=0)
    (outcome,) = pair.outcomes([job])
    assert outcome.error is not None
    assert (outcome.state, outcome.error.type) == (JobState.DEAD, "ConfigurationError")


@pytest.mark.parametrize(
    ("task", "args", "codec", "error"),
    [
        ("sleep", ("long",), "plain", "ArgumentError"),
        ("sleep", (), "plain", "ArgumentError"),
        (CALL, (1,), "plain", "ArgumentError"),
    ],
)
def test_a_job_that_can_never_run_is_dead_at_once(
    pair: Client, task: str, args: tuple[Any, ...], codec: str, error: str
) -> None:
    (job,) = pair.submit(task, args, codec=codec)
    (outcome,) = pair.outcomes([job])
    assert outcome.error is not None
    assert (outcome.state, outcome.error.type) == (JobState.DEAD, error)
    assert pair.view(job).attempts[0].cause is Cause.REFUSED


@pytest.mark.parametrize(("task", "args"), [("echo", (1,)), (CALL, (len, "four"))])
def test_a_pickled_job_waits_for_a_worker_that_accepts_it(
    pair: Client, task: str, args: tuple[Any, ...]
) -> None:
    (job,) = pair.submit(task, args, codec="pickle")
    # The workers of this queue, which accept plain data alone, have run the jobs after it.
    assert pair.results(pair.submit("echo", (2,), (3,))) == [2, 3]
    assert pair.view(job).state == "ready"
    assert "--accept pickle" in pair.view(job).reason
    assert pair.broker.cancel([job]) == 1


def test_a_pickled_callable_runs_where_pickle_is_accepted(single: Client) -> None:
    assert single.results(single.submit(CALL, (len, "four"), codec="pickle")) == [4]


def test_a_task_that_exits_is_a_failed_attempt_and_not_a_dead_consumer(single: Client) -> None:
    before = single.results(single.submit("pid"))
    (outcome,) = single.outcomes(single.submit("leave"))
    assert outcome.error is not None
    assert outcome.error.type == "SystemExit"
    assert single.results(single.submit("pid")) == before


def test_a_process_that_a_task_forks_does_not_answer_for_it(single: Client) -> None:
    """It returns into the consumer's loop, and must not send a second outcome over the same socket."""
    (child,) = single.results(single.submit("fork_and_return"))
    assert child > 0
    assert single.results(single.submit("echo", ("still there",))) == ["still there"]


def test_every_attempt_is_one_line_of_log(shared: Manager, single: Client) -> None:
    jobs = single.submit("echo", (1,)) + single.submit("leave")
    single.outcomes(jobs)
    worker = shared.workers["single"]

    def lines() -> list[dict[str, Any]]:
        return [line for line in worker.events("attempt_finished") if line["job_id"] in jobs]

    until(lambda: len(lines()) == 2)
    good, bad = lines()
    assert (good["outcome"], good["attempt"], good["worker"]) == ("succeeded", 1, "single")
    assert {"task", "queue", "wait_s", "run_s", "consumer"} <= set(good)
    assert (bad["outcome"], bad["error_type"], bad["level"]) == ("failed", "SystemExit", "warning")


@pytest.mark.parametrize(
    ("task", "argument", "retries", "cause", "attempts"),
    [("too_long", 30.0, 1, "timed_out", 2), ("die", 7, 0, "crashed", 3), ("leave", None, 2, "failed", 3)],
)
def test_an_attempt_that_ends_badly_has_one_line_with_its_job_and_task(
    shared: Manager,
    single: Client,
    task: str,
    argument: float | None,
    retries: int,
    cause: str,
    attempts: int,
) -> None:
    (job,) = single.submit(task, (argument,) if argument else (), retries=retries, backoff=0.01)
    single.outcomes([job])
    worker = shared.workers["single"]

    def lines() -> list[dict[str, Any]]:
        return [line for line in worker.events("attempt_finished") if line["job_id"] == job]

    until(lambda: len(lines()) == attempts)
    assert {(line["task"], line["outcome"]) for line in lines()} == {(lines()[0]["task"], cause)}
    assert [line["attempt"] for line in lines()] == list(range(1, attempts + 1))


# --- timeouts and crashes ---------------------------------------------------------------------------------


def test_a_timeout_kills_only_the_consumer_that_ran_over_it(pair: Client) -> None:
    others = pair.submit("sleep", (1.0,))
    (late,) = pair.submit("too_long", (30.0,))
    (outcome,) = pair.outcomes([late])
    assert outcome.error is not None
    assert outcome.error.type == "TimedOut"
    assert "0.3 s" in outcome.error.message
    assert 0.3 <= outcome.seconds < 25.0  # its sleep is 30 s
    pair.results(others)
    assert pair.view(others[0]).attempts == []
    view = pair.view(late)
    assert (view.failures, view.crashes, view.interruptions) == (1, 0, 0)
    assert view.attempts[0].cause is Cause.TIMED_OUT


def test_a_job_that_timed_out_is_tried_again_by_its_policy(single: Client) -> None:
    (job,) = single.submit("too_long", (30.0,), retries=1, backoff=0.01)
    single.outcomes([job])
    assert single.view(job).failures == 2


def test_a_timeout_works_while_the_task_holds_the_interpreter_lock(single: Client) -> None:
    began = time.monotonic()
    (outcome,) = single.outcomes(single.submit("hold_gil", (20,), timeout=0.3, retries=0))
    assert outcome.error is not None
    assert outcome.error.type == "TimedOut"
    assert time.monotonic() - began < 15


def test_what_a_task_has_started_dies_with_it_at_a_timeout(single: Client, tmp_path: Path) -> None:
    single.outcomes(single.submit("too_long_with_child", (str(tmp_path / "pid"),)))
    child = int((tmp_path / "pid").read_text(encoding="utf-8"))
    until(lambda: not alive(child))


@pytest.mark.parametrize(
    ("task", "args", "cause"),
    [("segfault", (), "SIGSEGV"), ("kill_self", (), "SIGKILL"), ("die", (7,), "exit code 7")],
)
def test_a_job_is_dead_with_the_cause_after_it_killed_three_consumers(
    pair: Client, task: str, args: tuple[Any, ...], cause: str
) -> None:
    (job,) = pair.submit(task, args)
    (outcome,) = pair.outcomes([job])
    assert outcome.error is not None
    assert cause in outcome.error.message
    view = pair.view(job)
    assert (view.failures, view.crashes, view.interruptions) == (0, 3, 0)


def test_a_crash_is_charged_to_the_executing_job_only(single: Client) -> None:
    """The consumer holds others, read ahead and done but not yet reported; they run again, uncharged."""
    warm_up(single)
    # One lane keeps the order: all are of one task, and one argument makes the difference.
    jobs = single.submit("sleep_or_die", *[(0,)] * 20, (7,), *[(0,)] * 20)
    outcomes = single.outcomes(jobs)
    assert [outcome.error is not None for outcome in outcomes] == [False] * 20 + [True] + [False] * 20
    views = [single.view(job) for job in jobs]
    assert [view.crashes for view in views] == [0] * 20 + [3] + [0] * 20
    assert not any(view.failures or view.interruptions for view in views)


# --- reading ahead ----------------------------------------------------------------------------------------


def test_an_idle_consumer_runs_what_a_busy_one_has_read_ahead(pair: Client, tmp_path: Path) -> None:
    warm_up(pair)
    go = tmp_path / "go"
    jobs = pair.submit("sleep", *[(0,)] * 20, (0, str(go)), *[(0,)] * 100)
    pair.results(jobs[:20] + jobs[21:])  # none waits for the long one
    go.touch()
    pair.results(jobs)
    assert not any(pair.view(job).attempts for job in jobs)


def test_results_do_not_wait_behind_a_long_job_of_the_same_consumer(single: Client, tmp_path: Path) -> None:
    warm_up(single)
    go = tmp_path / "go"
    jobs = single.submit("sleep", *[(0,)] * 20, (0, str(go)))
    single.results(jobs[:20])
    go.touch()
    single.results(jobs)


def test_long_jobs_are_taken_one_at_a_time(pair: Client) -> None:
    # An even five each, but for the moods of the machine; read ahead, all ten would be one consumer's.
    for _ in range(5):
        pids = pair.results(pair.submit("sleep", *[(0.1,)] * 10))
        if all(3 <= pids.count(pid) <= 7 for pid in set(pids)):
            break
    assert all(3 <= pids.count(pid) <= 7 for pid in set(pids))


# --- reports ----------------------------------------------------------------------------------------------


def test_a_task_that_exits_with_255_is_charged_though_a_dead_forkserver_looks_the_same(pair: Client) -> None:
    (job,) = pair.submit("die", (255,))
    pair.outcomes([job])
    assert pair.view(job).crashes == 3


def test_a_snapshot_tells_what_the_consumers_do(manager: Manager, client: Client, tmp_path: Path) -> None:
    go, began = tmp_path / "go", time.monotonic()
    supervisor = Supervisor(
        options(2, cpu=CpuCount(1, "affinity")),
        functools.partial(connect, manager.address, KEY),
        functools.partial(configure_logging, "error"),
    )
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(supervisor.run()), daemon=True)
    thread.start()
    try:
        jobs = client.submit("sleep", (0.6, str(go)))
        until(lambda: supervisor.snapshot().consumers == {"busy": 1, "idle": 1, "starting": 0})
        go.touch()
        client.results(jobs)
        client.outcomes(client.submit("die", (1,)))
        until(lambda: supervisor.snapshot().consumers["idle"] == 2)
        now = supervisor.snapshot()
        assert (now.options.name, now.options.host, now.options.start_method, now.options.cpu) == (
            "w",
            "here",
            "forkserver",
            CpuCount(1, "affinity"),
        )
        assert now.restarts == {"crashed": 3}
        assert 0.6 < now.busy_seconds < time.monotonic() - began
        assert (now.connected, now.draining, now.reconnects) == (True, False, 0)
    finally:
        supervisor.stop()
        thread.join(45.0)
    assert codes == [0]
    assert supervisor.snapshot().draining


def test_a_worker_tells_the_manager_what_it_can_do(client: Client, start: Start) -> None:
    start(2, http="127.0.0.1:9101", release="9.9", queues=("a", "b"))
    until(lambda: client.broker.stats().consumers == 2)
    # The supervisor and its consumers come in any order.
    until(lambda: client.broker.members()[0].consumers == 2 and client.broker.members()[0].host)
    (view,) = client.broker.members()
    assert (view.name, view.host, view.http, view.release) == ("w", "here", "127.0.0.1:9101", "9.9")
    assert view.queues == ["a", "b"]
    assert "tests.support.worker_tasks:echo" in view.tasks
    assert isinstance(client.broker.call([c.Ping()])[0], object)
