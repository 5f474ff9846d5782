"""The error of a timed-out attempt has the Python stacks of its process, and they never delay the kill."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from svc.domain.field_bounds import TRACEBACK_MAX
from svc.domain.job import ErrorInfo
from tests.support.workers import Client, Manager, Worker, options

_TRIES = 5
#: Another one is for a machine that was too slow for the first.
_TRIES_MAX = 20
TASKS, COROUTINES = "tests.support.stoppable_tasks", "tests.support.coroutine_tasks"


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """A client whose jobs run on one consumer."""
    manager = Manager()
    manager.start()
    worker = Worker(manager.address, options(1, tasks=(TASKS, COROUTINES, "tests.support.worker_tasks")))
    worker.start()
    with manager.client() as made:
        made.results(made.submit("pid"))
        yield made
    worker.end()
    manager.stop()


def timed_out(client: Client, task: str, timeout: float = 0.4) -> ErrorInfo:
    """Run one job without retries that runs over its timeout; return its error."""
    (job,) = client.submit(f"{TASKS}:{task}", (), retries=0, timeout=timeout)
    (ended,) = client.outcomes([job])
    assert ended.error is not None
    assert ended.error.type == "TimedOut"
    (attempt,) = client.view(job).attempts
    assert (attempt.cause, attempt.error) == ("timed_out", ended.error)
    return ended.error


def whole_stacks(run: Callable[[], ErrorInfo], line: str) -> str:
    """Return stacks that show *line*; a consumer has 50 ms to write them, and a busy machine takes some."""
    for _ in range(_TRIES_MAX):
        text = run().traceback
        if line in text:
            break
    return text


@pytest.mark.parametrize("task", ["sleeps", "waits_for_a_socket", "matches", "stays_in_c"])
def test_the_error_of_a_timeout_shows_the_line_of_the_task(task: str, client: Client) -> None:
    text = whole_stacks(partial(timed_out, client, task), f"in {task}")
    assert text.startswith("Current thread")
    assert f"{Path(TASKS.replace('.', '/'))}.py" in text
    assert f"in {task}" in text


@pytest.mark.parametrize("task", ["sleeps_in_c", "sleeps_in_c_for_all", "sleeps_in_c_on_its_loop"])
def test_an_attempt_that_the_signal_for_its_stacks_ends_early_has_timed_out(
    task: str, client: Client
) -> None:
    timed_out(client, task)
    client.results(client.submit("pid"))


def test_equal_stacks_are_equal_texts_which_the_journal_keeps_once(client: Client) -> None:
    texts: Counter[str] = Counter()
    for number in range(_TRIES_MAX):
        texts[timed_out(client, "stays_in_c").traceback] += 1
        if number >= _TRIES - 1 and max(texts.values()) > 1:
            break
    assert max(texts.values()) > 1


@pytest.mark.parametrize("ending", ["timeout", "crash"])
def test_stacks_of_many_threads_are_cut_and_the_one_of_the_task_is_kept(ending: str, client: Client) -> None:
    for timeout in (1.5, 5.0, 25.0):  # the threads take a while on a slow machine
        (job,) = client.submit(f"{TASKS}:has_many_deep_threads", (ending,), retries=0, timeout=timeout)
        error = client.outcomes([job])[0].error
        assert error is not None
        if "in has_many_deep_threads" in error.traceback and len(error.traceback) == TRACEBACK_MAX:
            break
    assert error is not None
    assert error.type == ("TimedOut" if ending == "timeout" else "ConsumerDied")
    assert len(error.traceback) == TRACEBACK_MAX
    current, _, others = error.traceback.partition("\n\nThread")
    assert "in has_many_deep_threads" in current
    assert "in _deep" in others


def test_a_task_that_takes_the_signal_for_itself_has_timed_out_all_the_same(client: Client) -> None:
    timed_out(client, "takes_the_signal_for_stacks")
    client.results(client.submit("pid"))


@pytest.mark.parametrize("how", ["", "ignore", "block"])
def test_the_error_of_a_job_that_runs_beside_others_shows_where_it_waits(how: str, client: Client) -> None:
    def run() -> ErrorInfo:
        (job,) = client.submit(f"{COROUTINES}:limited", (60.0, how))
        error = client.outcomes([job])[0].error
        assert error is not None
        assert error.type == "TimedOut"
        return error

    assert "in limited" in whole_stacks(run, "in limited")


def test_a_job_that_blocks_its_event_loop_is_shown(client: Client) -> None:
    line = "in blocks_the_loop"
    assert line in whole_stacks(partial(timed_out, client, "blocks_the_loop"), line)
