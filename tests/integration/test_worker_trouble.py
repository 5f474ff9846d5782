"""A worker in trouble: without a manager, with wrong keys or tasks, without its forkserver."""

from __future__ import annotations

import functools
import logging
import os
import signal
from collections.abc import Collection
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from svc.errors import ConfigurationError
from svc.worker.supervisor import Supervisor
from tests.support.memory_journals import reopened
from tests.support.processes import alive
from tests.support.workers import (
    KEY,
    Client,
    Manager,
    Start,
    Worker,
    command_of,
    configure_logging,
    connect,
    descendants,
    options,
    until,
)

POISON = "tests.support.poison_tasks"


def test_jobs_and_worker_survive_a_restart_of_the_manager(
    manager: Manager, client: Client, start: Start, tmp_path: Path
) -> None:
    """The job that runs meanwhile is recorded once, by the attempt that was under way."""
    worker = start(2)
    path = tmp_path / "marks"
    jobs = client.submit("mark", *[(str(path), 1.0)] * 3)
    until(lambda: path.exists() and path.read_text(encoding="utf-8").count("begin") >= 2)
    manager.restart()
    client.results(jobs)
    assert path.read_text(encoding="utf-8").count("begin") == 3
    assert not any(client.view(job).attempts for job in jobs)
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0


def test_a_consumer_without_descriptors_is_replaced_when_it_loses_the_manager(
    manager: Manager, client: Client
) -> None:
    few_descriptors = ("sh", "-c", 'ulimit -n 256; exec "$@"', "sh")
    worker = Worker(manager.address, options(1, tasks=(POISON,)), prefix=few_descriptors)
    worker.start()
    try:
        client.results(client.submit(f"{POISON}:take_all_descriptors"))
        manager.restart()
        assert client.results(client.submit(f"{POISON}:good", (1,)), 30.0) == [1]
    finally:
        worker.end()
    (told,) = worker.events("descriptors_exhausted")
    assert "[Errno 24]" in told["error"]
    (died,) = worker.events("consumer_died")
    assert (died["executing"], "exit code 71" in died["cause"]) == (False, True)


def test_a_worker_waits_for_a_manager_that_is_not_there_yet(manager: Manager, start: Start) -> None:
    manager.stop()
    worker = start(1)
    until(lambda: worker.events("manager_unreachable"))
    manager.journal = reopened(manager.journal)
    manager.start()
    with manager.client() as client:
        assert client.results(client.submit("echo", (1,))) == [1]
    assert len([line for line in worker.events("manager_unreachable") if line["level"] == "warning"]) == 1


def test_an_idle_worker_stops_soon_while_the_manager_is_away(manager: Manager, start: Start) -> None:
    worker = start(2, grace=60.0)
    with manager.client() as client:
        client.results(client.submit("echo", (1,)))
    manager.stop()
    try:
        worker.signal(signal.SIGTERM)
        assert worker.wait(20.0) == 0
    finally:
        manager.journal = reopened(manager.journal)
        manager.start()


def test_a_wrong_authkey_ends_the_worker_with_code_4(start: Start) -> None:
    worker = start(2, key=b"x" * 32)
    assert worker.wait() == 4
    assert "authkey" in worker.text[-1]
    assert "Traceback" not in "".join(worker.text)


def test_a_task_module_that_cannot_be_imported_ends_the_worker_with_code_2(start: Start) -> None:
    worker = start(2, tasks=("no_such_module",))
    assert worker.wait() == 2
    assert "no_such_module" in worker.text[-1]
    assert "Traceback" not in "".join(worker.text)


def test_a_worker_whose_consumers_all_end_at_once_without_their_tasks_was_not_drained(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    supervisor = Supervisor(
        options(2, tasks=("no_such_module",)),
        functools.partial(connect, manager.address, KEY),
        functools.partial(configure_logging, "error"),
    )
    wait = supervisor._wait

    def wait_for_all() -> Collection[object]:
        until(lambda: not any(alive(child.pid) for child in supervisor._consumer_pool.children))
        return wait()

    monkeypatch.setattr(supervisor, "_wait", wait_for_all)
    try:
        with capture_logs() as logs, pytest.raises(ConfigurationError, match="no_such_module"):
            supervisor.run()
    finally:
        structlog.configure(**before)
    assert "worker_drained" not in [log["event"] for log in logs]


def test_a_task_module_that_kills_its_process_is_not_tried_in_a_tight_loop(start: Start) -> None:
    worker = start(1, tasks=("tests.support.worker_tasks_deadly",))
    assert worker.wait() == 2
    second, third = (
        datetime.fromisoformat(each["timestamp"]) for each in worker.events("consumer_died")[1:3]
    )
    assert third - second > timedelta(seconds=0.5)


def test_a_stopped_forkserver_is_replaced_and_the_job_is_run_again(
    client: Client, start: Start, tmp_path: Path
) -> None:
    worker = start(1)
    marks, go = tmp_path / "marks", tmp_path / "go"
    marks.touch()
    jobs = client.submit("mark", (str(marks), 0.0, str(go)))
    until(lambda: marks.read_text().count("begin") == 1)
    os.kill(forkserver_of(worker), signal.SIGSTOP)
    until(lambda: worker.events("consumer_killed"), 20.0)
    assert len(worker.events("forkserver_stopped")) == 1
    go.touch()
    client.results(jobs)
    assert (client.view(jobs[0]).crashes, client.view(jobs[0]).interruptions) == (0, 1)


def test_a_worker_with_a_stopped_forkserver_stops(client: Client, start: Start) -> None:
    worker = start(1)
    client.results(client.submit("echo", (1,)))
    os.kill(forkserver_of(worker), signal.SIGSTOP)
    worker.signal(signal.SIGTERM)
    assert worker.wait(20.0) == 0


def forkserver_of(worker: Worker) -> int:
    """Return the process that forks the consumers of *worker*."""
    return next(pid for pid in descendants(worker.process.pid) if b"forkserver" in command_of(pid))


def test_a_dead_forkserver_is_replaced_and_no_job_is_charged_for_it(
    client: Client, start: Start, tmp_path: Path
) -> None:
    """That the worker lost a helper is no job's fault: three times would be the end of every job that ran."""
    worker = start(2)
    marks = tmp_path / "marks"
    marks.touch()
    go = tmp_path / "go"
    jobs = client.submit("mark", *[(str(marks), 0.0, str(go))] * 3)
    until(lambda: marks.read_text().count("begin") == 2)
    os.kill(forkserver_of(worker), signal.SIGKILL)
    until(lambda: len(worker.events("consumer_killed")) == 2)
    go.touch()
    client.results(jobs)
    assert [client.view(job).crashes for job in jobs] == [0, 0, 0]
    assert [client.view(job).interruptions for job in jobs[:2]] == [1, 1]
    assert {line["reason"] for line in worker.events("consumer_killed")} == {"orphaned"}
    assert worker.events("consumer_died") == []
