"""A worker that loads its tasks again at SIGHUP."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.workers import Client, Manager, Worker, descendants, options, until

#: The versions have different lengths: Python tells sources by second and size.
TASKS = """
import os, time, {table}
def version(pause=0.0, until="", begun=""):
    if begun:
        open(begun, "w").close()
    time.sleep(pause)
    while until and not os.path.exists(until):
        time.sleep(0.01)
    return "{version}", {table}.VERSION
"""


def write(folder: Path, version: str) -> None:
    (folder / "reloaded.py").write_text(TASKS.format(version=version, table="reloaded_table"))
    (folder / "reloaded_table.py").write_text(f"VERSION = '{version}'\n")


@pytest.fixture
def launch(manager: Manager, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    workers: list[Worker] = []

    def launch(consumers: int = 2, **changes: Any) -> Worker:
        write(tmp_path, "one")
        path = f"{Path(__file__).parents[2]}:{tmp_path}"
        served = options(consumers, tasks=("reloaded",), **changes)
        workers.append(Worker(manager.address, served, environment={"PYTHONPATH": path}))
        workers[-1].start()
        with manager.client() as client:
            until(lambda: client.broker.stats().consumers == consumers, what="all have the first version")
        return workers[-1]

    yield launch
    for worker in workers:
        worker.end()


def versions(client: Client, jobs: int = 1, pause: float = 0.0) -> list[list[str]]:
    return client.results(client.submit("reloaded:version", *[(pause,)] * jobs))


def reloaded(worker: Worker, count: int) -> None:
    until(lambda: len(worker.events("consumer_recycled")) >= count, what="all consumers are replaced")


@pytest.mark.parametrize("preloaded", [(), ("reloaded_table",)])
def test_jobs_run_with_the_new_code_after_a_reload_and_none_is_lost(
    preloaded: tuple[str, ...], launch, manager: Manager, tmp_path: Path
):
    worker = launch(user_preload=preloaded)
    with manager.client() as client, manager.client() as other:
        assert versions(client) == [["one", "one"]]
        beside: list[list[str]] = []
        busy = threading.Thread(target=lambda: beside.extend(versions(other, 100, 0.02)), daemon=True)
        busy.start()
        write(tmp_path, "second")
        worker.signal(signal.SIGHUP)
        reloaded(worker, 2)
        busy.join(90)
        assert len(beside) == 100
        assert {tuple(each) for each in beside} <= {("one", "one"), ("second", "second")}
        until(lambda: len(worker.events("consumer_left")) == 2)
        assert versions(client, 10) == [["second", "second"]] * 10
        # One forkserver and two consumers: the old forkserver has ended with its last consumer.
        until(lambda: len(descendants(worker.process.pid)) == 3)
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0


def test_code_that_cannot_be_imported_leaves_the_old_consumers_at_work(
    launch, manager: Manager, tmp_path: Path
):
    worker = launch(1)
    with manager.client() as client:
        versions(client)
        (tmp_path / "reloaded.py").write_text("this is no Python at all\n")
        worker.signal(signal.SIGHUP)
        until(lambda: worker.events("tasks_not_loaded"))
        assert versions(client) == [["one", "one"]]
        write(tmp_path, "third")
        worker.signal(signal.SIGHUP)
        reloaded(worker, 1)
        until(lambda: worker.events("consumer_left"))
        assert versions(client) == [["third", "third"]]


def test_a_worker_killed_after_a_reload_leaves_no_process(launch, manager: Manager, tmp_path: Path):
    worker = launch(1, user_preload=("reloaded_table",))
    with manager.client() as client:
        versions(client)
        client.submit("reloaded:version", (600.0, "", str(tmp_path / "begun")))
        until((tmp_path / "begun").exists)
        worker.signal(signal.SIGHUP)
        reloaded(worker, 1)
        below = descendants(worker.process.pid)
        assert len(below) >= 4  # two forkservers, the old consumer with its job, the new one
        os.kill(worker.process.pid, signal.SIGKILL)
        until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in below), what="all its processes end")


def codes(client: Client) -> dict[str, int]:
    (worker,) = client.broker.members()
    return worker.code


@pytest.mark.parametrize("preloaded", [(), ("reloaded_table",)])
def test_old_and_new_code_are_told_apart_until_the_old_consumers_have_left(
    preloaded: tuple[str, ...], launch, manager: Manager, tmp_path: Path
):
    worker = launch(2, user_preload=preloaded)
    with manager.client() as client:
        assert versions(client) == [["one", "one"]]
        until(lambda: list(codes(client).values()) == [2])
        (old,) = codes(client)
        end = tmp_path / "end"
        (long,) = client.submit("reloaded:version", (0.0, str(end), str(tmp_path / "begun")))
        until((tmp_path / "begun").exists)
        assert client.view(long).code == old
        (tmp_path / "reloaded_table.py").write_text("VERSION = 'second'\n")
        worker.signal(signal.SIGHUP)
        reloaded(worker, 2)
        until(lambda: len(codes(client)) == 2 and codes(client)[old] == 1, what="one old consumer is left")
        (new,) = codes(client).keys() - {old}
        (job,) = client.submit("reloaded:version", (0.0,))
        assert client.results([job]) == [["one", "second"]]
        assert client.view(job).code == new
        end.touch()
        assert client.results([long]) == [["one", "one"]]
        assert client.view(long).code == old
        until(lambda: codes(client) == {new: 2}, what="the old consumer has left")
    until(lambda: worker.events("code_changed"))
    (change,) = worker.events("code_changed")
    assert (change["old"], change["new"], change["reloaded"], change["level"]) == (old, new, True, "info")


def test_a_consumer_that_is_replaced_after_a_change_of_the_files_is_told_apart(
    launch, manager: Manager, tmp_path: Path
):
    worker = launch(2)
    with manager.client() as client:
        versions(client)
        until(lambda: list(codes(client).values()) == [2])
        write(tmp_path, "second")
        consumer = min(descendants(worker.process.pid)[-2:])
        os.kill(consumer, signal.SIGKILL)
        until(
            lambda: sorted(codes(client).values()) == [1, 1], what="the files' new code runs beside the old"
        )
        until(lambda: worker.events("code_changed"))
        (change,) = worker.events("code_changed")
        assert (change["reloaded"], change["level"]) == (False, "warning")
        worker.signal(signal.SIGHUP)
        until(lambda: codes(client) == {change["new"]: 2})
