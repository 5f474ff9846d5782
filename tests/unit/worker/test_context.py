"""A task finds its own job."""

from __future__ import annotations

import re
import sys
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from svc import OutsideJob, Progress, current_job
from svc.domain.job import Terms
from svc.domain.replies import Delivery
from svc.testing import LocalQueue, local_client, run_jobs
from svc.worker import context
from tests.support.svc import ROOT

TASKS = "tests.support.context_tasks"


@pytest.fixture
def queue() -> Iterator[LocalQueue]:
    queue = LocalQueue()
    yield queue
    queue.close()


def ran(queue: LocalQueue, name: str) -> tuple[str, Any]:
    """Run a task; return the job's id and its result."""
    job = local_client(queue).submit(f"{TASKS}:{name}")
    run_jobs(queue, [TASKS])
    return job.id, job.result(timeout=0)


def test_a_task_reads_what_is_known_of_its_job(queue: LocalQueue) -> None:
    before = time.time()
    job, found = ran(queue, "describe")
    assert before - 1 <= found.pop("submitted_at") <= time.time() + 1
    assert found == {
        "id": job,
        "task": f"{TASKS}:describe",
        "queue": "default",
        "attempt": 1,
        "failures": 0,
        "crashes": 0,
        "interruptions": 0,
        "suspicions": 0,
        "left": None,
    }


def test_a_job_that_has_lost_its_workers_knows_how_often_it_is_suspected() -> None:
    delivery = Delivery(1, "origin", 7, Terms("m:f"), [b""], interruptions=3, suspicions=2)
    running = context.begin(delivery, None)
    running.number = 7
    job = running.job()
    context.end(running)
    assert (job.suspicions, job.interruptions, job.attempt) == (2, 3, 4)


def test_the_deadline_is_that_of_the_timeout(queue: LocalQueue) -> None:
    assert 50 < ran(queue, "describe_bounded")[1]["left"] <= 60


def test_a_second_attempt_knows_of_the_first(queue: LocalQueue) -> None:
    job = local_client(queue).submit(f"{TASKS}:describe_second_attempt")
    run_jobs(queue, [TASKS])
    found = job.result(timeout=0) if job.view().state == "succeeded" else None
    while found is None:
        run_jobs(queue, [TASKS])
        found = job.result(timeout=0) if job.view().state == "succeeded" else None
    assert (found["attempt"], found["failures"]) == (2, 1)


@pytest.mark.parametrize("name", ["ids_of_threads", "ids_of_coroutines", "ids_of_a_generator"])
def test_threads_coroutines_and_generators_of_a_task_belong_to_its_job(queue: LocalQueue, name: str) -> None:
    job, found = ran(queue, name)
    assert set(found) == {job}


def test_outside_a_job_there_is_a_clear_error() -> None:
    with pytest.raises(OutsideJob, match="no job runs here"):
        current_job()


def test_code_that_outlives_its_attempt_gets_no_other_job(queue: LocalQueue) -> None:
    job, _ = ran(queue, "keep_the_context")
    _, message = ran(queue, "use_the_kept_context")
    assert message == f"the attempt at job {job} has ended; this code outlives it"


def test_a_thread_beside_several_jobs_is_told_to_copy_its_context() -> None:
    delivery = Delivery(1, "origin", 0, Terms("m:f"), [b"", b""])
    several = [context.begin(delivery, None) for _ in range(2)]
    for number, each in enumerate(several):
        each.number = number
    context.set_current((several[1], 1))
    said: list[str] = []

    def ask() -> None:
        with pytest.raises(OutsideJob) as caught:
            current_job()
        said.append(str(caught.value))

    try:
        assert current_job() is current_job()
        assert current_job().id == "origin-1"
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
    finally:
        for each in several:
            context.end(each)
    assert "2 jobs run in this process" in said[0]
    assert "copy_context" in said[0]


def example(place: int, folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a module of an example of the page."""
    page = (ROOT / "docs/current-job.md").read_text(encoding="utf-8")
    code = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[place]
    (folder / f"{name}.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(folder)


def test_the_first_example_of_the_page_runs(
    queue: LocalQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example(0, tmp_path, "resizing", monkeypatch)
    job = local_client(queue).submit("resizing:resize", ["a.png", "b.png"])
    run_jobs(queue, ["resizing"])
    assert job.result(timeout=0) == 2


def test_the_example_with_a_checkpoint_goes_on_where_it_failed(
    queue: LocalQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example(1, tmp_path, "indexing", monkeypatch)
    job = local_client(queue).options(backoff=0.0).submit("indexing:index", ["a", "b", "broken", "c"])
    while job.view().state != "succeeded":
        run_jobs(queue, ["indexing"])
    assert job.view().failures == 1
    assert job.result(timeout=0) == 2


def test_a_client_asks_for_the_progress_of_its_job(
    queue: LocalQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Progress | None] = []
    job = local_client(queue).submit("watched:work")

    def work() -> None:
        current_job().progress(1, 4, "a quarter")
        seen.append(job.progress())

    module = types.ModuleType("watched")
    work.__module__ = "watched"
    vars(module)["work"] = work
    monkeypatch.setitem(sys.modules, "watched", module)
    run_jobs(queue, ["watched"])
    assert job.result(timeout=0) is None
    (told,) = seen
    assert told is not None
    assert (told.done, told.total, told.note, told.fraction) == (1, 4, "a quarter", 0.25)


def test_the_example_that_submits_a_job_runs(
    queue: LocalQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    example(2, tmp_path, "splitting", monkeypatch)
    client = local_client(queue)
    job = client.submit("splitting:split", "one two three")
    assert run_jobs(queue, ["splitting"]) == 2
    (child,) = job.result(timeout=0)
    assert client.result(child, timeout=0) == 3
