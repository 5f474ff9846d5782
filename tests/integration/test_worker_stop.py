"""The end of a worker: signals, drains, and processes that must not stay behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.processes import alive
from tests.support.workers import (
    Client,
    Manager,
    Start,
    Worker,
    command_of,
    descendants,
    options,
    until,
    warm_up,
)


def test_sigterm_finishes_what_runs_and_gives_back_the_rest(
    client: Client, start: Start, tmp_path: Path
) -> None:
    worker = start(2)
    path = tmp_path / "marks"
    go = tmp_path / "go"
    jobs = client.submit("mark", *[(str(path), 0.0, str(go))] * 6)
    until(lambda: path.exists() and path.read_text(encoding="utf-8").count("begin") == 2)
    worker.signal(signal.SIGTERM)
    until(lambda: worker.events("worker_stopping"))
    go.touch()
    assert worker.wait() == 0
    assert [client.state(job) for job in jobs].count("succeeded") == 2
    assert path.read_text(encoding="utf-8").count("end") == 2
    start(2, name="second")
    client.results(jobs)
    assert path.read_text(encoding="utf-8").count("begin") == 6
    assert not any(client.view(job).attempts for job in jobs)
    assert len(worker.events("worker_stopped")) == 1


def test_sigterm_in_a_flood_of_short_jobs_loses_none_and_charges_none(client: Client, start: Start) -> None:
    first = start(2, log_level="warning")
    warm_up(client)
    jobs = client.submit("sleep", *[(0,)] * 20_000)
    first.signal(signal.SIGTERM)
    assert first.wait() == 0
    start(2, name="second", log_level="warning")
    client.results(jobs)
    assert client.broker.stats().queues[0].dead == 0
    assert not any(client.view(job).attempts for job in jobs[::100])


def running(client: Client, folder: Path, seconds: float) -> str:
    """Return a job that runs: one that is leased may not have begun."""
    (job,) = client.submit("mark", (str(folder / "runs"), seconds))
    until((folder / "runs").exists)
    return job


def test_a_job_that_outlasts_the_grace_goes_back_uncharged(
    client: Client, start: Start, tmp_path: Path
) -> None:
    worker = start(1, grace=0.3)
    job = running(client, tmp_path, 100.0)
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    view = client.view(job)
    assert (view.state, view.failures, view.crashes, view.interruptions) == ("ready", 0, 0, 1)


def test_a_second_signal_ends_the_grace(client: Client, start: Start, tmp_path: Path) -> None:
    worker = start(1, grace=200.0)
    job = running(client, tmp_path, 200.0)
    worker.signal(signal.SIGINT)
    until(lambda: worker.events("worker_stopping"))
    worker.signal(signal.SIGINT)
    assert worker.wait() == 0
    assert client.view(job).interruptions == 1


@pytest.mark.parametrize("start_method", ["forkserver", "spawn"])
@pytest.mark.parametrize("task", ["sleep", "hold_gil"])
def test_a_killed_supervisor_leaves_no_process_behind(
    client: Client, start: Start, start_method: str, task: str
) -> None:
    """Not even one whose task holds the interpreter lock: the kernel ends it."""
    worker = start(2, start_method=start_method)
    jobs = client.submit(task, (30,), (30,))
    until(lambda: all(client.state(job) == "leased" for job in jobs))
    consumers = descendants(worker.process.pid)
    assert len(consumers) >= 2
    worker.process.kill()
    until(lambda: not any(alive(pid) for pid in consumers), what=f"end of {consumers}")


def test_a_worker_whose_consumers_all_had_their_pill_exits_0(client: Client, start: Start) -> None:
    worker = start(3)
    client.results(client.submit("echo", (1,)))
    until(lambda: client.broker.stats().consumers == 3)
    client.broker.drain()
    assert worker.wait() == 0
    assert worker.events("worker_drained")[0]["consumers"] == 3
    until(lambda: client.broker.stats().consumers == 0)


def test_a_drained_worker_finishes_the_job_it_runs(client: Client, start: Start, tmp_path: Path) -> None:
    worker = start(2)
    job = running(client, tmp_path, 1.0)
    client.broker.drain()
    assert worker.wait() == 0
    assert client.state(job) == "succeeded"


def test_a_worker_that_starts_during_a_drain_ends_at_once(client: Client, start: Start) -> None:
    client.broker.drain()
    assert start(2).wait() == 0


_AS_PROCESS_1 = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


def _may_unshare() -> bool:
    with contextlib.suppress(OSError):
        return (
            subprocess.run([*_AS_PROCESS_1, "true"], capture_output=True, check=False, timeout=60).returncode
            == 0
        )
    return False


@pytest.mark.skipif(not _may_unshare(), reason="needs the right to make a process namespace")
def test_as_process_1_it_hears_sigterm_and_reaps_orphans(manager: Manager, client: Client) -> None:
    worker = Worker(manager.address, options(1), prefix=_AS_PROCESS_1)
    worker.start()
    try:
        client.results(client.submit("orphan", *[()] * 5))
        until(lambda: client.results(client.submit("zombies")) == [0])
        (first,) = [pid for pid in descendants(worker.process.pid) if b"worker_main" in command_of(pid)]
        os.kill(first, signal.SIGTERM)
        assert worker.wait() == 0
    finally:
        worker.end()
