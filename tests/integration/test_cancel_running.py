"""Cancel of jobs that run, in real consumers: what the task sees, what is recorded, who is left."""

from __future__ import annotations

import signal
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from svc import JobCancelled
from svc.broker.manager import ManagerBroker
from svc.client.client import BrokerClient
from svc.client.executor import BrokerExecutor
from svc.domain.lifecycle import JobState
from svc.domain.limits import Limits
from tests.support.stoppable_tasks import STUBBORN
from tests.support.workers import KEY, Client, Manager, Start, Worker, descendants, options, until

TASKS = "tests.support.stoppable_tasks"
MODULES = (TASKS, "tests.support.worker_tasks")


@pytest.fixture
def client(manager: Manager):
    with manager.client() as made:
        yield made


def running(client: Client, task: str, *args: object) -> str:
    """Submit a job; return its id once it runs."""
    (job,) = client.submit(f"{TASKS}:{task}", args)
    until(lambda: client.state(job) == "leased", what="the job is leased")
    until(lambda: task not in STUBBORN or client.has_begun(job), what="its task has begun")
    return job


def cancelled(client: Client, job: str, grace: float = 5.0) -> None:
    """Cancel a job that runs, which is on record at once."""
    assert client.broker.cancel([job], running=True, grace=grace) == 1
    assert client.state(job) == "cancelled"
    (ended,) = client.outcomes([job])
    assert (ended.state, ended.error) == (JobState.CANCELLED, None)


def free_again(client: Client, seconds: float) -> None:
    """Run a job on the only consumer, which has to be free within some *seconds*."""
    began = time.monotonic()
    client.results(client.submit("pid"))
    assert time.monotonic() - began < seconds


def ends_of(worker: Worker, job: str) -> list[dict[str, Any]]:
    """Return the ends of a job's attempts in the worker's log, of which a line may come late."""
    return [told for told in worker.events("attempt_finished") if told["job_id"] == job]


@pytest.mark.parametrize("task", ["sleeps", "waits_for_a_socket", "waits_for_a_lock", "loops", "matches"])
def test_a_running_job_is_stopped_by_an_exception(task: str, client: Client, start: Start):
    worker = start(1, tasks=MODULES)
    client.results(client.submit("pid"))
    job = running(client, task)
    cancelled(client, job, grace=30.0)
    free_again(client, 25.0)
    until(lambda: ends_of(worker, job))
    (told,) = ends_of(worker, job)
    assert (told["outcome"], told["error_type"]) == ("cancelled", "Cancelled")
    assert not worker.events("outcome_refused") + worker.events("report_refused")
    assert [each.how for each in client.view(job).attempts] == ["cancelled"]


@pytest.mark.parametrize("task", STUBBORN)
def test_a_task_that_does_not_end_is_killed_after_the_grace(task: str, client: Client, start: Start):
    worker = start(1, tasks=MODULES)
    client.results(client.submit("pid"))
    job = running(client, task)
    began = time.monotonic()
    cancelled(client, job, grace=0.4)
    until(lambda: worker.events("consumer_killed"), 30.0)  # its task goes on for longer
    assert time.monotonic() - began >= 0.4
    (told,) = worker.events("consumer_killed")
    assert told["reason"] == "cancelled"
    free_again(client, 25.0)
    assert client.state(job) == "cancelled"
    assert not worker.events("report_refused")


def test_the_task_may_clean_up_and_its_result_counts_no_more(client: Client, start: Start, tmp_path: Path):
    worker = start(1, tasks=MODULES)
    told = tmp_path / "told"
    job = running(client, "tidies", str(told))
    until(told.exists)
    cancelled(client, job)
    until(lambda: told.read_text() == "Cancelled")
    returned = running(client, "returns_all_the_same")
    cancelled(client, returned)
    until(lambda: worker.events("outcome_refused"))
    assert client.state(returned) == "cancelled"


def test_processes_of_a_cancelled_job_end_with_it(client: Client, start: Start, tmp_path: Path):
    worker = start(1, tasks=MODULES)
    job = running(client, "starts_others", str(tmp_path / "pid"))
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    child = int((tmp_path / "pid").read_text())
    assert child in descendants(worker.process.pid)
    cancelled(client, job)
    until(lambda: not Path(f"/proc/{child}").exists())


def test_a_worker_hears_of_a_cancel_well_before_its_next_renewal():
    manager = Manager(Limits(lease_seconds=600.0))
    manager.start()
    worker = Worker(manager.address, options(1, tasks=MODULES))
    worker.start()
    try:
        with manager.client() as client:
            for _ in range(3):
                client.results(client.submit("pid"))
                job = running(client, "sleeps")
                cancelled(client, job)
                until(partial(ends_of, worker, job), 30.0)  # a renewal comes after minutes
                assert [told["outcome"] for told in ends_of(worker, job)] == ["cancelled"]
    finally:
        worker.end()
        manager.stop()


def test_a_job_stays_cancelled_if_its_worker_vanishes(client: Client, start: Start):
    worker = start(1, tasks=MODULES)
    job = running(client, "takes_and_forgets")
    worker.signal(signal.SIGSTOP)
    cancelled(client, job)
    worker.process.kill()
    start(1, tasks=MODULES, name="other")
    client.results(client.submit("pid"))
    assert client.state(job) == "cancelled"


def test_a_running_job_can_be_cancelled_during_the_shutdown_of_its_worker(client: Client, start: Start):
    worker = start(1, tasks=MODULES, grace=60.0)
    job = running(client, "sleeps")
    worker.signal(signal.SIGTERM)
    until(lambda: worker.events("worker_stopping"))
    cancelled(client, job)
    assert worker.wait(45.0) == 0
    assert client.state(job) == "cancelled"


def test_a_cancel_outlives_a_restart_of_the_manager(manager: Manager, start: Start, tmp_path: Path):
    worker = start(1, tasks=MODULES)
    told = tmp_path / "told"
    with manager.client() as client:
        job = running(client, "tidies", str(told))
        until(told.exists)
        worker.signal(signal.SIGSTOP)
        cancelled(client, job)
    manager.restart()
    worker.signal(signal.SIGCONT)
    until(lambda: told.read_text() == "Cancelled", 30.0)
    with manager.client() as client:
        assert client.state(job) == "cancelled"


def test_a_task_that_keeps_the_interpreter_is_stopped_also_after_a_restart(manager: Manager, start: Start):
    """Its consumer cannot say hello to the new manager, so the supervisor names the attempt."""
    worker = start(1, tasks=MODULES)
    with manager.client() as client:
        job = running(client, "stays_in_c")
        worker.signal(signal.SIGSTOP)
        cancelled(client, job, grace=0.0)
    manager.restart()
    worker.signal(signal.SIGCONT)
    until(lambda: worker.events("consumer_killed"))
    assert worker.events("consumer_killed")[0]["reason"] == "cancelled"
    with manager.client() as client:
        client.results(client.submit("pid"))
        assert client.state(job) == "cancelled"


def test_a_job_whose_task_keeps_the_interpreter_runs_once_over_a_restart(manager: Manager, start: Start):
    workers = [start(1, tasks=MODULES, name=name) for name in ("one", "two")]
    with manager.client() as client:
        (job,) = client.submit("hold_gil", (8,))
        until(lambda: client.state(job) == "leased")
        began = time.monotonic()
        until(lambda: time.monotonic() - began > 3.0, what="the supervisor counts it as a long job")
    manager.restart()
    with manager.client() as client:
        until(lambda: client.state(job) == "succeeded")
        view = client.view(job)
    assert (view.attempts, view.interruptions) == ([], 0)
    assert not [each for worker in workers for each in worker.events("outcome_refused")]


def test_read_ahead_jobs_around_a_cancelled_one_all_succeed(client: Client, start: Start):
    start(1, tasks=MODULES)
    client.results(client.submit("sleep", *[(0,)] * 3000))
    ids = client.submit("sleep", *[(0.001,)] * 400)
    until(lambda: any(client.state(each) == "leased" for each in ids[:100]))
    count = client.broker.cancel(ids[50:350:5], running=True)
    states = {outcome.state for outcome in client.outcomes(ids)}
    assert states <= {JobState.SUCCEEDED, JobState.CANCELLED}
    outcomes = client.outcomes(ids)
    assert sum(each.state is JobState.CANCELLED for each in outcomes) == count
    assert all(each.state is JobState.SUCCEEDED for each in outcomes[:50])


def test_a_job_handle_and_a_future_cancel_what_runs(manager: Manager, start: Start, client: Client):
    start(2, tasks=MODULES)
    with BrokerClient(lambda: ManagerBroker(manager.address, KEY)) as made:
        job = made.submit(f"{TASKS}:sleeps")
        until(lambda: job.view().state == "leased")
        assert job.cancel(grace=2.0)
        assert not job.cancel()
        with pytest.raises(JobCancelled):
            job.result(timeout=60)
        with BrokerExecutor(made) as executor:
            future = executor.submit(f"{TASKS}:sleeps")
            until(future.running)
            assert future.cancel()
            assert future.cancelled()


def test_cancel_all_ends_jobs_of_one_task_and_leaves_others_alone(
    manager: Manager, start: Start, client: Client
):
    start(1, tasks=MODULES)
    job = running(client, "sleeps")
    waiting = client.submit(f"{TASKS}:loops", *[()] * 1500) + client.submit(f"{TASKS}:loops")
    other = client.submit("pid")
    assert client.broker.cancel_all(task=f"{TASKS}:loops", running=True) == 1501
    assert {client.state(each) for each in (waiting[0], waiting[-1])} == {"cancelled"}
    assert client.state(other[0]) == "ready"
    assert client.broker.cancel_all(queue="elsewhere", running=True) == 0
    assert client.broker.cancel_all() == 1
    assert client.state(job) == "leased"
    assert client.broker.cancel_all(running=True) == 1
