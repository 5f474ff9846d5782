"""The limits of an attempt: soft timeouts and memory, enforced in real consumers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.workers import KEY, Client, Manager, Start, Worker, options, until

TASKS = "tests.support.stoppable_tasks"
MIB = 1 << 20
#: The arguments of a task that takes 400 MiB in some 8 s, and keeps them until it is killed.
GREEDY = (400, 0.02, 60.0)


@pytest.fixture
def client(manager: Manager, start: Start):
    """A client whose jobs run on one consumer."""
    start(1, tasks=(TASKS,))
    with manager.client() as made:
        yield made


def error_of(client: Client, task: str, *args: object, **terms: Any):
    """Run one job without retries; return its error, and its history."""
    (job,) = client.submit(f"{TASKS}:{task}", args, **{"retries": 0, **terms})
    (ended,) = client.outcomes([job])
    assert ended.error is not None
    return ended.error, client.view(job)


@pytest.mark.parametrize("task", ["sleeps", "waits_for_a_socket", "waits_for_a_lock", "loops", "matches"])
def test_a_soft_timeout_is_raised_in_the_task(task: str, client: Client):
    error, view = error_of(client, task, soft_timeout=0.8, timeout=50.0)
    assert error.type == "SoftTimeout"
    assert f"in {task}" in error.traceback
    (attempt,) = view.attempts
    assert (attempt.cause, view.failures, view.crashes) == ("timed_out", 1, 0)
    assert 0.8 <= attempt.seconds < 25.0


def test_a_soft_timeout_is_raised_in_a_task_that_waits_for_another_job(client: Client, manager: Manager):
    place = (*manager.address, KEY.hex())
    error, view = error_of(client, "waits_for_a_job", *place, soft_timeout=0.8, timeout=50.0)
    assert error.type == "SoftTimeout"
    assert "in waits_for_a_job" in error.traceback
    assert view.attempts[0].seconds < 25.0


def test_a_task_can_clean_up_after_a_soft_timeout_and_still_succeed(client: Client, tmp_path: Path):
    (job,) = client.submit(f"{TASKS}:returns_all_the_same", soft_timeout=0.8)
    assert client.results([job]) == ["done"]
    error_of(client, "tidies", str(tmp_path / "told"), soft_timeout=0.8)
    assert (tmp_path / "told").read_text() == "SoftTimeout"


def test_a_coroutine_gets_a_cancelled_error(client: Client, tmp_path: Path):
    error, _ = error_of(client, "sleeps_in_a_coroutine", str(tmp_path / "told"), soft_timeout=0.8)
    assert error.type == "SoftTimeout"
    assert (tmp_path / "told").read_text() == "CancelledError"


def test_a_coroutine_may_still_succeed_after_its_soft_timeout_or_fail_otherwise(client: Client):
    (job,) = client.submit(f"{TASKS}:returns_from_a_coroutine_all_the_same", soft_timeout=0.8, retries=0)
    assert client.results([job]) == ["done"]
    error, _ = error_of(client, "fails_in_a_coroutine_otherwise", soft_timeout=0.8)
    assert (error.type, error.message) == ("ValueError", "its own")


@pytest.mark.parametrize("task", ["stays_in_c", "takes_and_forgets"])
def test_a_task_that_does_not_end_at_its_soft_timeout_is_killed_at_its_timeout(task: str, client: Client):
    error, view = error_of(client, task, soft_timeout=0.2, timeout=1.0)
    assert error.type == "TimedOut"
    assert 1.0 <= view.attempts[0].seconds < 25.0  # `takes_and_forgets` goes on for 60 s


def test_a_consumer_is_replaced_after_an_interruption_and_the_next_job_runs(manager: Manager, start: Start):
    worker = start(1, tasks=(TASKS, "tests.support.worker_tasks"))
    with manager.client() as client:
        (before,) = client.results(client.submit("pid"))
        error_of(client, "sleeps", soft_timeout=0.2)
        (after,) = client.results(client.submit("pid"))
        assert before != after
    until(lambda: worker.events("consumer_renewed"))
    (told,) = worker.events("consumer_renewed")
    assert told["changed"] == ["interrupted task"]


def test_a_task_is_not_interrupted_in_the_middle_of_an_import(client: Client, tmp_path: Path):
    error, _ = error_of(client, "imports", soft_timeout=0.2)
    assert error.type == "SoftTimeout"
    assert "slow_module" not in error.traceback


def test_an_attempt_over_its_memory_fails_with_the_limit_and_the_peak(client: Client):
    error, view = error_of(client, "takes_memory", *GREEDY, max_rss=100 * MIB)
    assert error.type == "MemoryLimitExceeded"
    assert "its max_rss of 100.0 MiB" in error.message
    peak = float(error.message.removeprefix("it took ").partition(" MiB")[0])
    assert 100 < peak < 400
    assert (view.failures, view.crashes, view.attempts[0].cause) == (1, 0, "failed")


def test_memory_of_a_child_counts_and_that_below_the_limit_does_not_matter(client: Client):
    (job,) = client.submit(f"{TASKS}:takes_memory", (60,), max_rss=100 * MIB)
    assert client.results([job]) == [60]
    error, _ = error_of(client, "has_a_greedy_child", 200, max_rss=100 * MIB)
    assert error.type == "MemoryLimitExceeded"


def test_other_jobs_of_the_worker_run_once_beside_a_job_over_its_memory(
    manager: Manager, start: Start, tmp_path: Path
):
    worker = start(2, tasks=(TASKS, "tests.support.worker_tasks"))
    with manager.client() as client:
        ids = client.submit(f"{TASKS}:takes_memory", GREEDY, retries=0, max_rss=100 * MIB)
        marks = client.submit("mark", *[(str(tmp_path / "marks"), 0.0)] * 100)
        assert client.outcomes(ids)[0].error is not None
        client.results(marks)
    assert (tmp_path / "marks").read_text().count("begin") == 100
    until(lambda: worker.events("consumer_killed"))
    assert [each["reason"] for each in worker.events("consumer_killed")] == ["memory"]


def test_the_example_of_the_page_runs(manager: Manager, start: Start, tmp_path: Path):
    page = Path(__file__).parents[2] / "docs" / "limits.md"
    example = page.read_text(encoding="utf-8").partition("```python\n")[2].partition("```")[0]
    slow = "import time\n\n\ndef slow_work(path):\n    time.sleep(60)\n"
    (tmp_path / "example_of_limits.py").write_text(example + slow, encoding="utf-8")
    path = f"{Path(__file__).parents[2]}:{tmp_path}"
    worker = Worker(
        manager.address, options(1, tasks=("example_of_limits",)), environment={"PYTHONPATH": path}
    )
    worker.start()
    with manager.client() as client:
        assert client.results(client.submit("example_of_limits:render", ("a.pdf",))) == [
            "the first pages only"
        ]
    worker.end()


def test_the_default_timeout_of_a_worker_is_for_attempts_without_one(manager: Manager, start: Start):
    start(1, tasks=(TASKS,), default_timeout=0.4)
    with manager.client() as client:
        error, _ = error_of(client, "sleeps")
        assert (error.type, "timeout of 0.4 s" in error.message) == ("TimedOut", True)
        error, _ = error_of(client, "sleeps", timeout=0.8)
        assert "timeout of 0.8 s" in error.message
