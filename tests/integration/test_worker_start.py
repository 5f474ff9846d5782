"""A worker's first seconds: its port, its tasks, and a manager that is not there."""

from __future__ import annotations

import json
import socket
import subprocess
import time
from contextlib import ExitStack
from typing import Any

import pytest

from tests.support.svc import SVC, Host, end, ended_late, running, until

TASKLESS = {
    "empty": "",
    "private": "def _hidden(): ...\n",
    "borrowed": "from os.path import join, split\n",
    "classes": "class Sum:\n    def run(self): ...\n",
}


@pytest.fixture
def host(tmp_path):
    found = Host(tmp_path)
    yield found
    found.log.close()


def worker(host: Host, *flags: str):
    """Start a worker with the usual HTTP address, if *flags* name no other."""
    command = [*SVC, "worker", "--log-format", "json", "--manager", "127.0.0.1:1", *flags]
    return running(*command, cwd=host.folder, env=host.env, stderr=subprocess.PIPE)


def line_with(process, event: str) -> Any:
    """Return the first log line of *event*."""
    with ended_late(process):
        for text in process.stderr:
            line = json.loads(text)
            if line["event"] == event:
                return line
    raise AssertionError(f"ended with {process.wait(20)} and no {event}")


@pytest.fixture
def usual_port():
    """The usual port of a worker's metrics, taken by this test or by somebody else already."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # A worker of another test has it for a short time, and would give it up too soon.
        for _ in range(200):
            try:
                holder.bind(("127.0.0.1", 9101))
                holder.listen()
                break
            except OSError:
                time.sleep(0.1)
        yield


def test_a_second_worker_on_a_host_serves_at_a_free_port(host, usual_port):
    announced = host.folder / "at.json"
    with worker(host, "--tasks", "svc.cli.demo_tasks", "--announce", str(announced)) as process:
        moved = line_with(process, "http_moved")
        assert moved["taken"] == "127.0.0.1:9101"
        until(announced.exists, "the worker serves")
        assert json.loads(announced.read_text())["http"] == moved["http"] != "127.0.0.1:9101"


def test_a_port_that_was_asked_for_stays_a_conflict_that_says_how_to_go_on(host, usual_port):
    ended = host.svc("worker", "--tasks", "m", "--http", "127.0.0.1:9101")
    assert ended.returncode == 6
    assert "--http off" in ended.stderr


@pytest.mark.slow
def test_a_log_line_about_an_unreachable_manager_names_its_address(host):
    named = {
        "127.0.0.1:1": "127.0.0.1:1",
        "localhost:2": "localhost:2",
        "[::1]:3": "[::1]:3",
        "4": "127.0.0.1:4",
        "no-such-host.invalid:5": "no-such-host.invalid:5",
    }
    flags = ("--tasks", "svc.cli.demo_tasks", "--consumers", "1", "--http", "off")
    with ExitStack() as stack:
        # At the same time: each complains after some seconds of silence.
        workers = {at: stack.enter_context(worker(host, *flags, "--manager", at)) for at in named}
        said = {at: line_with(process, "manager_unreachable") for at, process in workers.items()}
    assert {at: line["manager"] for at, line in said.items()} == named
    assert "Connection refused" in said["127.0.0.1:1"]["error"]


@pytest.mark.parametrize("module", TASKLESS)
def test_a_worker_whose_modules_have_no_tasks_ends_and_says_so(host, module):
    (host.folder / f"{module}.py").write_text(TASKLESS[module])
    manager = host.start_manager()
    try:
        ended = host.svc("worker", "--tasks", module, "--http", "off", "--consumers", "1")
    finally:
        end(manager)
    assert ended.returncode == 2
    assert f"no task is in the modules {module}" in ended.stderr


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("nomod", ""),
        ("own.py", "own"),
        ("./own.py", "own"),
        ("own/jobs.py", "own.jobs"),
        ("/x/own.py", "own"),
        ("own:add", "own"),
    ],
)
def test_a_module_that_cannot_be_imported_is_all_that_a_worker_tells(host, name, meant):
    (host.folder / "own.py").write_text("def add(a, b): return a + b\n")
    flags = ("--tasks", name, "--http", "off", "--consumers", "4", "--manager", "127.0.0.1:1")
    ended = host.svc("worker", "--log-format", "json", *flags)
    (line,) = ended.stderr.splitlines()
    assert ended.returncode == 2
    assert line.startswith(f"svc: the task module {name!r} cannot be imported: ")
    assert line.endswith(f"; write the module's name: --tasks {meant}") is bool(meant)


def test_a_wrong_option_of_a_task_is_told_with_its_place_on_lines_of_their_own(host):
    (host.folder / "own.py").write_text("from svc import task\n\n@task(retries='x')\ndef add(a, b): ...\n")
    flags = ("--tasks", "own", "--http", "off", "--consumers", "2", "--manager", "127.0.0.1:1")
    first, place, *_ = host.svc("worker", "--log-format", "json", *flags).stderr.splitlines()
    assert first.startswith("svc: the task module 'own' cannot be imported: ConfigurationError: the retries")
    assert place == f'  File "{host.folder / "own.py"}", line 3, in <module>'
