"""Leftovers of tasks: processes end with the attempt or with the consumer, and its state is put back."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from svc.domain.limits import Limits
from tests.support.processes import alive
from tests.support.workers import Client, Manager, Worker, options, until

#: Not imported here: it starts a process.
TASKS = "tests.support.leftover_tasks"
WAYS = ("child", "session", "daemon", "multiprocessing", "grandchild")


PUT_BACK = ("directory", "umask", "environment", "blocked signals", "recursion", "cpus", "stream")
NOT_PUT_BACK = (
    *("locale", "handler", "timer", "limit", "priority", "descriptor", "closed"),
    pytest.param("user", marks=pytest.mark.skipif(os.geteuid() != 0, reason="only root has other groups")),
)


@pytest.fixture
def worker(manager: Manager) -> Iterator[Worker]:
    worker = Worker(manager.address, options(1, tasks=(TASKS,), grace=1.0))
    worker.start()
    yield worker
    worker.end()


def submit(client: Client, task: str, *arguments: object) -> str:
    (job,) = client.submit(f"{TASKS}:{task}", arguments, retries=0)
    return job


def started(path: Path) -> tuple[int, int]:
    """Return the process that a task has started, and the consumer."""
    until(path.exists)
    child, consumer = path.read_text().split()
    return int(child), int(consumer)


@pytest.mark.parametrize("then", ["return", "fail", "crash"])
@pytest.mark.parametrize("way", WAYS)
def test_what_an_attempt_has_started_ends_with_it(
    way: str, then: str, client: Client, worker: Worker, tmp_path: Path
):
    (outcome,) = client.outcomes([submit(client, "start", way, str(tmp_path / "pids"), then)])
    child, _ = started(tmp_path / "pids")
    until(lambda: not alive(child))
    if then == "crash":
        assert outcome.error is None or "exit code 3" in outcome.error.message


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("end", ["kill the consumer", "stop the worker", "kill the worker", "drain"])
def test_what_a_task_has_kept_ends_with_its_consumer(
    end: str, way: str, client: Client, worker: Worker, tmp_path: Path
):
    then = "return" if end == "drain" else "wait"
    job = submit(client, "start_and_keep", way, str(tmp_path / "pids"), then)
    child, consumer = started(tmp_path / "pids")
    if then == "return":
        client.outcomes([job])
    assert alive(child)
    match end:
        case "kill the consumer":
            os.kill(consumer, signal.SIGKILL)
        case "stop the worker":
            worker.signal(signal.SIGTERM)
        case "kill the worker":
            worker.signal(signal.SIGKILL)
        case "drain":
            client.broker.drain()
    until(lambda: not alive(consumer))
    until(lambda: not alive(child))


def test_a_kept_process_and_one_of_a_module_outlive_attempts(client: Client, worker: Worker, tmp_path: Path):
    client.outcomes([submit(client, "start_and_keep", "daemon", str(tmp_path / "kept"), "return")])
    client.outcomes([submit(client, "start", "daemon", str(tmp_path / "other"), "return")])
    kept, other = started(tmp_path / "kept")[0], started(tmp_path / "other")[0]
    assert client.results([submit(client, "module_process")]) == [True]
    until(lambda: not alive(other))
    assert alive(kept)


@pytest.mark.parametrize("way", ["multiprocessing", "daemon"])
def test_a_child_that_holds_the_consumers_connection_does_not_delay_its_recovery(way: str, tmp_path: Path):
    manager = Manager(Limits(lease_seconds=600.0))  # none runs out meanwhile
    manager.start()
    worker = Worker(manager.address, options(1, tasks=(TASKS,), grace=1.0))
    worker.start()
    try:
        with manager.client() as client:
            job = submit(client, "start", way, str(tmp_path / "pids"), "wait")
            _, consumer = started(tmp_path / "pids")
            (tmp_path / "pids").unlink()
            os.kill(consumer, signal.SIGKILL)
            started(tmp_path / "pids")
            assert client.state(job) == "leased"
    finally:
        worker.end()
        manager.stop()


# --- the state of the process -----------------------------------------------------------------------


@pytest.mark.parametrize("what", PUT_BACK)
def test_a_state_that_can_be_put_back_is_put_back(what: str, client: Client, worker: Worker):
    (before,) = client.results([submit(client, "state")])
    client.results([submit(client, "change", what)])
    assert client.results([submit(client, "state")]) == [before]
    assert not worker.events("consumer_renewed")


@pytest.mark.parametrize("what", NOT_PUT_BACK)
def test_a_consumer_whose_state_cannot_be_put_back_is_replaced_uncharged(
    what: str, client: Client, worker: Worker
):
    (before,) = client.results([submit(client, "state")])
    changed, behind = client.submit(f"{TASKS}:change", (what,)), client.submit(f"{TASKS}:state", *[()] * 20)
    assert client.results(changed) == [before[0]]
    states = client.results(behind)
    assert before[0] not in [pid for pid, _ in states]
    assert [state for _, state in states] == [before[1]] * 20
    until(lambda: worker.events("consumer_renewed"))
    assert len(worker.events("consumer_renewed")) == 1
    views = client.broker.get(behind)
    assert {(view.failures, view.crashes, view.interruptions) for view in views} == {(0, 0, 0)}
