"""Clients on an operating system without POSIX: a stripped interpreter, a real manager and real workers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import executor_tasks as tasks
from tests.support.pickle_keys import PICKLE_KEYS
from tests.support.workers import KEY, Manager, Worker, options

_ROOT = Path(__file__).parents[2]
STRIP = """
import sys
from tests.support import bare_os
bare_os.strip()
"""
CLIENT = """
import functools
from svc import Client
with Client(accept=["plain", "pickle"]) as client:
    job = client.submit("tests.support.executor_tasks:add", 2, 3)
    print(job.result(100), job.done(), job.view().state)
    print(list(client.map("tests.support.executor_tasks:add", range(3), range(3), timeout=100)))
    print(client.results([client.submit(functools.partial(len), "four")], 100), client.stats().workers)
    late = client.options(delay=600).submit("tests.support.executor_tasks:add", 1, 1)
    print(late.cancel(), [view.id == job.id for view in client.find(state="succeeded", limit=50)].count(True))
"""
EXECUTOR = """
import concurrent.futures
from svc import Executor
with Executor(codec="pickle") as executor:
    futures = [executor.submit(pow, 2, number) for number in range(9)]
    print(sum(future.result(100) for future in concurrent.futures.as_completed(futures, 100)))
    print(list(executor.map(divmod, [7, 8], [2, 3], timeout=100)))
    print(type(executor.submit(divmod, 1, 0).exception(100)).__name__)
"""
AT_THE_END = """
from svc import Executor
executor = Executor()
for number in range(2000):
    future = executor.submit("tests.support.executor_tasks:add", number, 1)
print(future.job_id)
"""
TASK = """
from svc import task
@task(retries=1, timeout=5)
def double(number: int) -> int:
    return 2 * number
print(double(4), double.task_options.retries)
"""
COMMAND = """
from svc.cli import main
sys.argv = ["svc", *sys.argv[1:]]
main()
"""


@pytest.fixture(scope="module")
def service() -> Iterator[Manager]:
    manager = Manager()
    manager.start()
    worker = manager.workers["w"] = Worker(
        manager.address, options(2, tasks=(tasks.__name__,), accept=("plain", "pickle")), "warning"
    )
    worker.start()
    yield manager
    worker.end()
    manager.stop()


@pytest.fixture
def run(service: Manager, tmp_path: Path):
    """Run a program in a stripped interpreter that finds the manager by its environment."""
    for name, key in (("pickle_key", PICKLE_KEYS.secrets[0]), ("authkey", KEY)):
        (tmp_path / name).write_bytes(key)
        (tmp_path / name).chmod(0o600)
    environment = {
        **os.environ,
        "PYTHONPATH": str(_ROOT),
        "SVC_MANAGER": "{}:{}".format(*service.address),
        "SVC_AUTHKEY_FILE": str(tmp_path / "authkey"),
        "SVC_PICKLE_KEY_FILE": str(tmp_path / "pickle_key"),
    }

    def run(program: str, *arguments: str, given: str = "", strip: str = STRIP) -> str:
        command = [sys.executable, "-W", "error", "-c", strip + program, *arguments]
        done = subprocess.run(
            command,
            env=environment,
            cwd=tmp_path,
            input=given,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def test_a_client_submits_follows_and_looks(run):
    assert run(CLIENT).splitlines() == ["5 True succeeded", "[0, 2, 4]", "[4] 1", "True 1"]


def test_an_executor_runs_callables_and_gives_their_exceptions(run):
    assert run(EXECUTOR).splitlines() == ["511", "[(3, 1), (2, 2)]", "ZeroDivisionError"]


def test_the_end_of_a_script_sends_what_was_submitted(run, service):
    last = run(AT_THE_END).split()[0]
    with service.client() as client:
        assert client.view(last).id == last


def test_a_module_of_tasks_is_imported_by_its_submitter(run):
    assert run(TASK) == "8 1\n"


def test_the_command_line_submits_and_shows(run, tmp_path):
    # A settings file is looked at more closely: who owns it, and who could write it.
    (tmp_path / "svc.toml").write_text("")
    assert run(COMMAND, "submit", "tests.support.executor_tasks:add", "20", "3", "--wait").strip() == "23"
    made = run(
        COMMAND,
        "submit",
        "--from",
        "-",
        given='{"task": "tests.support.executor_tasks:add", "args": [1, 1]}\n',
    )
    assert run(COMMAND, "results", made.strip()) == f"{made.strip()}\t2\n"
    assert "default" in run(COMMAND, "status")
    assert "add" in run(COMMAND, "jobs", "list")


@pytest.mark.parametrize("name", ["svc", "svc.app", "svc.worker.registry", "svc.client.executor"])
def test_each_module_that_a_client_needs_is_imported_by_itself(run, name):
    run(f"import {name}\nbare_os.check('')\nfrom svc import Client, Executor, task")
