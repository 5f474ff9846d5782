"""The examples of docs/task-kinds.md run as tasks, and do what the page says."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from svc.client.client import BrokerClient
from svc.client.submitter import Job
from svc.domain.limits import SECONDS_MAX
from svc.errors import JobFailed
from svc.testing import LocalQueue, local_client, run_jobs
from svc.worker.registry import BATCH_MAX, LINGER_MAX
from tests.support.readme import blocks
from tests.support.svc import ROOT

MODULE = "tasks_of_the_page"
_TEXT = (ROOT / "docs" / "task-kinds.md").read_text(encoding="utf-8")


@pytest.fixture
def queue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalQueue]:
    (tmp_path / f"{MODULE}.py").write_text("\n".join(blocks(_TEXT, "python")), encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    queue = LocalQueue()
    yield queue
    queue.close()
    sys.modules.pop(MODULE, None)


@pytest.fixture
def client(queue: LocalQueue) -> BrokerClient:
    return local_client(queue)


def attempted(queue: LocalQueue, client: BrokerClient, name: str, *args: object) -> Job:
    job = client.submit(f"{MODULE}:{name}", *args)
    assert run_jobs(queue, [MODULE]) == 1
    return job


def test_a_task_that_returns_has_succeeded(queue: LocalQueue, client: BrokerClient) -> None:
    assert attempted(queue, client, "fetch", 200).result(timeout=0) == "content"


@pytest.mark.parametrize(
    ("status", "how", "seconds", "failures"), [(429, "failed", 60, 1), (202, "snoozed", 30, 0)]
)
def test_a_task_says_when_it_is_tried_again(
    queue: LocalQueue, client: BrokerClient, status: int, how: str, seconds: float, failures: int
) -> None:
    view = attempted(queue, client, "fetch", status).view()
    (attempt,) = view.attempts
    assert (view.state, view.failures, attempt.how) == ("scheduled", failures, how)
    assert view.due_at == pytest.approx(attempt.at + seconds)


def test_a_task_that_gives_up_leaves_a_dead_job(queue: LocalQueue, client: BrokerClient) -> None:
    with pytest.raises(JobFailed, match="GiveUp: there is no such page"):
        attempted(queue, client, "fetch", 404).result(timeout=0)


def test_a_coroutine_keeps_the_things_of_its_loop(queue: LocalQueue, client: BrokerClient) -> None:
    assert attempted(queue, client, "greet", "you").result(timeout=0) == "hello you"
    assert attempted(queue, client, "greet", "me").result(timeout=0) == "hello me"


def test_a_task_with_a_concurrency_runs_in_place_too(queue: LocalQueue, client: BrokerClient) -> None:
    assert attempted(queue, client, "ask", "here").result(timeout=0) == "here has answered"


def test_a_task_with_a_batch_gets_a_list_and_each_job_has_its_outcome(
    queue: LocalQueue, client: BrokerClient
) -> None:
    jobs = [client.submit(f"{MODULE}:store", name, count) for name, count in (("a", 3), ("b", -1), ("c", 5))]
    assert run_jobs(queue, [MODULE]) == 3
    assert [jobs[0].result(timeout=0), jobs[2].result(timeout=0)] == ["a", "c"]
    view = jobs[1].view()
    assert (view.state, view.attempts[0].error.type) == ("scheduled", "ValueError")
    assert sys.modules[MODULE]._table == {"a": 3, "c": 5}


def test_the_function_of_a_batch_can_be_submitted_itself(queue: LocalQueue, client: BrokerClient) -> None:
    sys.modules.pop(MODULE, None)
    module = importlib.import_module(MODULE)
    job = client.submit(module.store, "apples", 3)
    run_jobs(queue, [MODULE])
    assert job.result(timeout=0) == "apples"


def test_the_bounds_of_lists_on_the_page_are_those_of_the_code() -> None:
    assert f"from 1 to {BATCH_MAX}, a linger a number of seconds from 0 to {LINGER_MAX:g}" in _TEXT


def test_the_bound_on_the_page_is_that_of_the_code() -> None:
    assert f"from 0 to {SECONDS_MAX:.0f}" in _TEXT
