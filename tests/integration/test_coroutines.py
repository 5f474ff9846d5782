"""Coroutines as tasks, with a real worker."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from svc.domain.job import Cause
from svc.domain.lifecycle import JobState
from tests.support.workers import Client, Manager, Worker, options

TASKS = "tests.support.coroutine_tasks"


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    manager = Manager()
    manager.start()
    worker = Worker(manager.address, options(1, tasks=(TASKS,)))
    worker.start()
    with manager.client() as found:
        yield found
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    manager.stop()


def test_jobs_of_one_consumer_share_its_event_loop_and_each_knows_itself(client: Client) -> None:
    ids = client.submit(f"{TASKS}:where", *[()] * 50)
    found = client.results(ids)
    assert len({(process, loop) for process, loop, _ in found}) == 1
    assert [job for _, _, job in found] == ids


def test_an_asyncio_task_ends_with_the_job_that_has_begun_it(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "ended"
    (job,) = client.submit(f"{TASKS}:leave_behind", (str(path),))
    client.results([job])
    assert path.read_text(encoding="utf-8") == job
    assert client.results(client.submit(f"{TASKS}:others")) == [0]


def test_a_coroutine_may_run_programs(client: Client) -> None:
    assert client.results(client.submit(f"{TASKS}:shell", ("one two",))) == ["one two"]


def test_a_coroutine_over_its_timeout_is_charged_and_the_next_job_runs(client: Client) -> None:
    (job,) = client.submit(f"{TASKS}:wait_for_ever")
    (outcome,) = client.outcomes([job])
    assert (outcome.state, client.view(job).attempts[0].cause) == (JobState.DEAD, Cause.TIMED_OUT)
    assert client.results(client.submit(f"{TASKS}:others")) == [0]


@pytest.mark.slow
def test_an_asyncio_task_that_does_not_end_takes_its_consumer_with_it_but_not_its_job(client: Client) -> None:
    (first,) = client.results(client.submit(f"{TASKS}:leave_stubborn"))
    ((second, _, _),) = client.results(client.submit(f"{TASKS}:where"))
    assert first != second
