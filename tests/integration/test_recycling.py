"""Consumers that are replaced after a number of jobs, a time, or with too much memory."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.workers import Client, Manager, Worker, descendants, options, until

SOURCE = """
import os, time
from pathlib import Path
from svc import on_start
HERE, KEPT = Path(__file__).parent, []
@on_start
def may_start():
    while (HERE / "hold").exists():
        time.sleep(0.01)
    if (HERE / "fail").exists():
        (HERE / "fail").unlink()
        raise OSError("no room")
def pid(number, pause):
    with (HERE / "runs").open("a") as file:
        file.write(f"{number} ")
    time.sleep(pause)
    return os.getpid()
def keep(mib):
    KEPT.append(b"x" * (mib << 20))
    return os.getpid()
"""


@pytest.fixture
def launch(manager: Manager, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    workers: list[Worker] = []

    def launch(consumers: int, **changes: Any) -> Worker:
        (tmp_path / "wearing.py").write_text(SOURCE)
        path = f"{Path(__file__).parents[2]}:{tmp_path}"
        served = options(consumers, tasks=("wearing",), **changes)
        workers.append(Worker(manager.address, served, environment={"PYTHONPATH": path}))
        workers[-1].start()
        return workers[-1]

    yield launch
    for worker in workers:
        worker.end()


def pids(client: Client, jobs: int, pause: float = 0.0) -> list[int]:
    return client.results(client.submit("wearing:pid", *[(number, pause) for number in range(jobs)]))


def worn(worker: Worker, client: Client, folder: Path) -> int:
    """Return the process of a consumer that is worn after two jobs; its successor is held at its start."""
    (first,) = pids(client, 1)
    (folder / "hold").touch()
    assert pids(client, 1) == [first]
    until(lambda: len(descendants(worker.process.pid)) == 3, what="forkserver, consumer and successor")
    return first


def test_a_consumer_leaves_after_its_jobs_and_none_is_run_twice_or_lost(
    launch, manager: Manager, tmp_path: Path
):
    worker = launch(2, recycle_jobs=5)
    ran: list[int] = []
    with manager.client() as client:

        def recycled_four_times() -> bool:
            # A successor that starts slowly may leave all jobs to those before it: then there are more.
            ran.extend(pids(client, 100, 0.02))
            return len(worker.events("consumer_recycled")) > 3

        until(recycled_four_times)
        recycled = worker.events("consumer_recycled")
        assert len(set(ran)) > 3
        assert {line["reason"] for line in recycled} == {"jobs"}
        runs = sorted(map(int, (tmp_path / "runs").read_text().split()))
        assert runs == sorted([*range(100)] * (len(ran) // 100))
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    # No consumer has left without a successor; the last one may have been on its way.
    recycled = worker.events("consumer_recycled")
    assert len(worker.events("consumer_left")) - len(recycled) in (2, 3)
    assert not worker.events("consumer_killed") + worker.events("consumer_died")


def test_a_worn_consumer_works_on_until_its_successor_is_ready(launch, manager: Manager, tmp_path: Path):
    worker = launch(1, recycle_jobs=2)
    with manager.client() as client:
        first = worn(worker, client, tmp_path)
        assert set(pids(client, 20)) == {first}
        assert not worker.events("consumer_recycled")
        (tmp_path / "hold").unlink()
        until(lambda: not Path(f"/proc/{first}").exists(), what="the worn consumer has left")
        assert pids(client, 1) != [first]


def test_memory_that_a_task_has_kept_is_given_back_with_its_process(launch, manager: Manager):
    worker = launch(1, recycle_rss=64 << 20)
    with manager.client() as client:
        (first,) = client.results(client.submit("wearing:keep", (16,)))
        (second,) = client.results(client.submit("wearing:keep", (128,)))
        assert first == second
        # Memory is measured ten times a second at most, and after a job: the next ones have it measured.
        until(lambda: client.results(client.submit("wearing:keep", (0,))) != [first], 60.0, "another runs")
        until(lambda: not Path(f"/proc/{first}").exists(), 60.0, "the large consumer has left")
        until(lambda: worker.events("consumer_recycled"))
        (line,) = worker.events("consumer_recycled")
        assert line["reason"] == "rss"
        assert pids(client, 1) != [first]


@pytest.mark.slow
def test_consumers_are_replaced_at_their_age_one_after_the_other_without_jobs(launch, manager: Manager):
    worker = launch(2, recycle_age=1.0)
    with manager.client() as client:
        pids(client, 2)
        until(lambda: len(worker.events("consumer_recycled")) >= 4)
        assert len(pids(client, 2)) == 2
    assert {line["reason"] for line in worker.events("consumer_recycled")} == {"age"}


def test_a_successor_that_cannot_start_is_tried_again_while_the_worn_one_works(
    launch, manager: Manager, tmp_path: Path
):
    worker = launch(1, recycle_jobs=2)
    with manager.client() as client:
        first = worn(worker, client, tmp_path)
        (tmp_path / "fail").touch()
        (tmp_path / "hold").unlink()
        until(lambda: worker.events("tasks_not_loaded"))
        assert pids(client, 1) == [first]
        until(lambda: worker.events("consumer_recycled"))
        pids(client, 1)


@pytest.mark.parametrize("died", ["old", "successor"])
def test_a_death_during_the_change_leaves_the_place_with_one_consumer(
    died: str, launch, manager: Manager, tmp_path: Path
):
    worker = launch(1, recycle_jobs=2)
    with manager.client() as client:
        first = worn(worker, client, tmp_path)
        (_, *consumers) = descendants(worker.process.pid)
        (successor,) = set(consumers) - {first}
        os.kill(first if died == "old" else successor, signal.SIGKILL)
        until(lambda: worker.events("consumer_died"))
        (tmp_path / "hold").unlink()
        assert pids(client, 1)
        until(lambda: len(descendants(worker.process.pid)) == 2, what="forkserver and one consumer")


def test_a_drain_during_the_change_ends_the_worker_and_counts_no_place_twice(
    launch, manager: Manager, tmp_path: Path
):
    worker = launch(1, recycle_jobs=2)
    with manager.client() as client:
        worn(worker, client, tmp_path)
        client.broker.drain()
        (tmp_path / "hold").unlink()
        assert worker.wait() == 0
    assert worker.events("worker_drained")
