"""A worker in trouble: without a manager, with wrong keys or tasks, without its forkserver."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests.support.memory_journals import reopened
from tests.support.workers import Client, Manager, Start, command_of, descendants, until


def test_jobs_and_worker_survive_a_restart_of_the_manager(
    manager: Manager, client: Client, start: Start, tmp_path: Path
) -> None:
    """The job that runs meanwhile is recorded once, by the attempt that was under way."""
    worker = start(2)
    path = tmp_path / "marks"
    jobs = client.submit("mark", *[(str(path), 1.0)] * 3)
    until(lambda: path.exists() and path.read_text(encoding="utf-8").count("begin") == 2)
    manager.restart()
    client.results(jobs)
    assert path.read_text(encoding="utf-8").count("begin") == 3
    assert not any(client.view(job).attempts for job in jobs)
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0


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


def test_a_task_module_that_kills_its_process_is_not_tried_in_a_tight_loop(start: Start) -> None:
    worker = start(1, tasks=("tests.support.worker_tasks_deadly",))
    until(lambda: len(worker.events("consumer_died")) == 2)
    began = time.monotonic()
    until(lambda: len(worker.events("consumer_died")) == 3)
    assert time.monotonic() - began > 0.5
    assert worker.wait() == 2


def test_a_dead_forkserver_is_replaced_and_no_job_is_charged_for_it(
    client: Client, start: Start, tmp_path: Path
) -> None:
    """That the worker lost a helper is no job's fault: three times would be the end of every job that ran."""
    worker = start(2)
    marks = tmp_path / "marks"
    marks.touch()
    jobs = client.submit("mark", *[(str(marks), 0.5)] * 3)
    until(lambda: marks.read_text().count("begin") == 2)
    (server,) = [pid for pid in descendants(worker.process.pid) if b"forkserver" in command_of(pid)][:1]
    os.kill(server, signal.SIGKILL)
    client.results(jobs)
    assert [client.view(job).crashes for job in jobs] == [0, 0, 0]
    assert [client.view(job).interruptions for job in jobs[:2]] == [1, 1]
    assert {line["reason"] for line in worker.events("consumer_killed")} == {"orphaned"}
    assert worker.events("consumer_died") == []
