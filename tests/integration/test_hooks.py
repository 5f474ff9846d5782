"""Hooks of consumers that raise, hang, exit or leave something behind, with real workers."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.inside import waiting_lessees
from tests.support.memory_journals import reopened
from tests.support.workers import Manager, Worker, descendants, options, until

HEAD = """
import os, signal, subprocess, sys, threading, time
from pathlib import Path
from svc import on_start, on_stop

HERE = Path(__file__).parent
def write(text):
    with (HERE / "calls").open("a") as file:
        file.write(f"{text}\\n")
def ok():
    return 1
"""


@pytest.fixture
def launch(manager: Manager, tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    workers: list[Worker] = []

    def launch(source: str, consumers: int = 1, **changes: Any) -> Worker:
        (tmp_path / "hooked.py").write_text(HEAD + source)
        path = f"{Path(__file__).parents[2]}:{tmp_path}"
        served = options(consumers, tasks=("hooked",), **changes)
        workers.append(Worker(manager.address, served, environment={"PYTHONPATH": path}))
        workers[-1].start()
        return workers[-1]

    yield launch
    for worker in workers:
        worker.end()


def calls(folder: Path) -> list[str]:
    file = folder / "calls"
    return file.read_text().splitlines() if file.exists() else []


def test_hooks_are_called_in_order_around_the_jobs_of_each_consumer(launch, manager: Manager, tmp_path: Path):
    worker = launch(
        """
@on_start
def first(): write("first")
@on_start
def second():
    write("second")
    sys.modules[__name__].model = 42
@on_stop
def third(): write("third")
@on_stop
def fourth(): write("fourth")
def answer():
    write("job")
    return model
"""
    )
    with manager.client() as client:
        assert client.results(client.submit("hooked:answer")) == [42]
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert calls(tmp_path) == ["first", "second", "job", "fourth", "third"]


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("@on_start\ndef load():\n    raise ValueError('no model')\n", "ValueError: no model"),
        ("@on_start\ndef load():\n    sys.exit('enough')\n", "SystemExit: enough"),
        ("@on_start\ndef load():\n    raise KeyboardInterrupt\n", "KeyboardInterrupt"),
        ("@on_start\ndef load(path): ...\n", "missing 1 required positional argument: 'path'"),
    ],
)
def test_a_start_hook_that_raises_ends_the_worker_and_is_told_with_its_place(source: str, told: str, launch):
    worker = launch(source)
    assert worker.wait(60) == 2
    said = "".join(worker.text)
    assert "the hook hooked:load of @on_start failed" in said
    assert told in said
    if "path" not in told:
        assert 'hooked.py", line' in said
    assert "svc/worker" not in said


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("@on_start\nasync def load(): ...\n", "without `async` and `yield`"),
        ("@on_stop\ndef load():\n    yield\n", "without `async` and `yield`"),
        ("@on_start\nclass Load: ...\n", "marks a plain function"),
    ],
)
def test_a_hook_whose_call_would_do_nothing_is_refused(source: str, told: str, launch):
    worker = launch(source)
    assert worker.wait(60) == 2
    assert told in "".join(worker.text)


@pytest.mark.parametrize(
    ("call", "told"),
    [("os._exit(0)", "exit code 0"), ("os.kill(os.getpid(), signal.SIGKILL)", "SIGKILL")],
)
def test_a_start_hook_that_ends_the_process_ends_the_worker(call: str, told: str, launch):
    worker = launch(f"@on_start\ndef load():\n    {call}\n")
    assert worker.wait(60) == 2
    said = "".join(worker.text)
    assert "@on_start hooks ends each time" in said
    assert told in said


@pytest.mark.parametrize(
    "call", ["time.sleep(600)", "threading.Thread(target=time.sleep, args=(600,)).start(); 1 / 0"]
)
def test_a_start_hook_that_hangs_or_leaves_a_thread_after_its_failure_leaks_no_consumer(call: str, launch):
    worker = launch(f"@on_start\ndef load():\n    {call}\n", import_timeout=2.0)
    below = until_some(worker)
    assert worker.wait(60) == 2
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in below), what="all its processes end")


def until_some(worker: Worker) -> list[int]:
    until(lambda: descendants(worker.process.pid))
    return descendants(worker.process.pid)


def test_a_start_hook_that_fails_in_a_later_consumer_leaves_the_worker_and_is_tried_again(
    launch, manager: Manager, tmp_path: Path
):
    worker = launch(
        """
@on_start
def load():
    write("start")
    if len((HERE / "calls").read_text().splitlines()) == 2:
        raise ConnectionError("the pool is full")
def die_once():
    if not (HERE / "dead").exists():
        (HERE / "dead").touch()
        os._exit(1)
"""
    )
    with manager.client() as client:
        client.results(client.submit("hooked:die_once"))
    assert calls(tmp_path) == ["start"] * 3
    until(lambda: worker.events("tasks_not_loaded"))
    (line,) = worker.events("tasks_not_loaded")
    assert "ConnectionError: the pool is full" in line["error"]


def test_what_a_start_hook_leaves_behind_stays_for_the_jobs(launch, manager: Manager):
    launch(
        """
@on_start
def load():
    global child
    child = subprocess.Popen(["sleep", "600"])
    os.environ["MODEL"] = "big"
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
def found():
    return [child.poll(), os.environ["MODEL"], os.getpid()]
"""
    )
    with manager.client() as client:
        # One after the other, so that each finds the process as the one before has left it.
        seen = [client.results(client.submit("hooked:found"))[0] for _ in range(3)]
    assert [(child, model) for child, model, _ in seen] == [(None, "big")] * 3
    assert len({pid for *_, pid in seen}) == 1


def test_a_stop_hook_that_raises_is_logged_and_the_others_are_called(
    launch, manager: Manager, tmp_path: Path
):
    worker = launch(
        """
@on_stop
def last(): write("last")
@on_stop
def first(): raise OSError("gone")
"""
    )
    with manager.client() as client:
        client.results(client.submit("hooked:ok"))
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert calls(tmp_path) == ["last"]
    (line,) = worker.events("stop_hook_failed")
    assert (line["hook"], line["error"].splitlines()[0]) == ("hooked:first", "OSError: gone")


@pytest.mark.parametrize("leave", ["SIGTERM", "drain"])
def test_a_stop_hook_that_hangs_has_the_grace_and_no_more(
    leave: str, launch, manager: Manager, tmp_path: Path
):
    worker = launch("@on_stop\ndef hang():\n    write('hang')\n    time.sleep(600)\n", grace=4.0)
    with manager.client() as client:
        client.results(client.submit("hooked:ok"))
        if leave == "drain":
            client.broker.drain()
        else:
            worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
        assert calls(tmp_path) == ["hang"]


@pytest.mark.slow
def test_a_consumer_that_waits_for_its_manager_is_not_taken_for_hung(
    launch, manager: Manager, tmp_path: Path
):
    manager.stop()
    try:
        worker = launch("@on_start\ndef first(): write('start')\n", import_timeout=4.0)
        until(lambda: calls(tmp_path))
        loaded = time.monotonic()
        until(lambda: time.monotonic() - loaded > 5.0, what="an import may not take so long")
        until(lambda: worker.events("manager_unreachable"))
    finally:
        manager.journal = reopened(manager.journal)
        manager.start()
    with manager.client() as client:
        client.results(client.submit("hooked:ok"))
    assert calls(tmp_path) == ["start"]


# --- while the manager is away ----------------------------------------------------------------------


@contextlib.contextmanager
def ended(manager: Manager) -> Iterator[None]:
    """The manager is gone, and its port is closed."""
    manager.stop()
    try:
        yield
    finally:
        manager.journal = reopened(manager.journal)
        manager.start()


@contextlib.contextmanager
def hung(manager: Manager) -> Iterator[None]:
    """The manager keeps its connections, and says nothing."""
    over = threading.Event()
    manager.server.ask(over.wait)
    try:
        yield
    finally:
        over.set()


@contextlib.contextmanager
def mute(manager: Manager) -> Iterator[None]:
    """The manager is gone; its host takes connections, and nobody says anything on them."""
    with ended(manager), socket.create_server(manager.address):
        yield


@pytest.mark.parametrize("away", [ended, hung, mute])
def test_idle_consumers_that_stop_without_a_manager_call_their_hooks(
    away: Callable[[Manager], contextlib.AbstractContextManager[None]],
    launch,
    manager: Manager,
    tmp_path: Path,
):
    worker = launch("@on_stop\ndef last(): write('last')\n", consumers=2, grace=60.0)
    host = manager.server._host
    until(lambda: manager.server.ask(lambda: waiting_lessees(host)).result(30) == 2)
    with away(manager):
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
    assert calls(tmp_path) == ["last", "last"]
    assert len(worker.events("consumer_left")) == 2
    assert worker.events("reports_undelivered") == []


def test_a_consumer_that_never_met_a_manager_calls_its_hooks(launch, manager: Manager, tmp_path: Path):
    with mute(manager):
        worker = launch("@on_start\ndef first(): write('first')\n@on_stop\ndef last(): write('last')\n")
        until(lambda: calls(tmp_path))
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
    assert calls(tmp_path) == ["first", "last"]
    assert worker.events("consumer_killed") == []


def test_an_outcome_that_waits_for_the_manager_is_told_before_the_hooks_are_called(
    launch, manager: Manager, tmp_path: Path
):
    worker = launch(
        """
@on_stop
def last(): write("last")
def slow():
    write("begin")
    while not (HERE / "go").exists():
        time.sleep(0.01)
    write("end")
    return 7
""",
        grace=60.0,
    )
    with manager.client() as client:
        (job,) = client.submit("hooked:slow")
        until(lambda: calls(tmp_path))
        with ended(manager):
            worker.signal(signal.SIGTERM)
            until(lambda: worker.events("worker_stopping"))
            (tmp_path / "go").touch()
            until(lambda: calls(tmp_path)[-1] == "end")
            until(lambda: worker.events("manager_unreachable"))  # longer than an idle one would wait
        assert client.results([job]) == [7]
        assert worker.wait() == 0
        assert client.view(job).attempts == []
    assert calls(tmp_path) == ["begin", "end", "last"]
