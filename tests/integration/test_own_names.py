"""A project whose own modules have the names of svc's source folder and of the standard library's modules."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.svc import Host, end, running, until

SVC = str(Path(sys.executable).with_name("svc"))
TASKS = """
import service

def add(a: int, b: int) -> int:
    return a + b + service.BONUS

def of_a_program() -> str:
    import os, subprocess, sys
    program = [sys.executable, "-c", "import service; print(service.BONUS)"]
    return subprocess.check_output(program, text=True).strip()
"""
CLIENT = """
import service
from svc import Client
print(Client().submit("tasks:add", 1, service.BONUS).result(timeout=30))
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a `service.py`, and a `queue.py` and `types.py` that no process of svc may import."""
    (tmp_path / "service.py").write_text("BONUS = 7")
    (tmp_path / "tasks.py").write_text(TASKS)
    for name in ("queue", "types"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('the project's {name}.py was imported')")
    return tmp_path


@pytest.fixture
def host(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """A manager and a worker that were started in that folder by the console script."""
    monkeypatch.setattr("tests.support.svc.SVC", (SVC,))
    host = Host(project)
    host.env.pop("PYTHONPATH")
    manager = host.start_manager("127.0.0.1:0", "--journal", "jobs.sqlite")
    worker, _ = host.start("worker", "--tasks", "tasks", "--consumers", "2")
    yield host
    end(worker, manager)
    host.log.close()


def test_a_worker_finds_the_tasks_and_none_of_the_projects_modules_hides_one_of_the_library(host: Host):
    asked = host.svc("submit", "tasks:add", "2", "3", "--wait")
    assert (asked.stdout, asked.returncode) == ("12\n", 0), asked.stderr


def test_a_program_that_a_task_starts_imports_from_the_working_directory_as_ever(host: Host):
    (host.folder / "types.py").unlink()
    asked = host.svc("submit", "tasks:of_a_program", "--wait")
    assert (asked.stdout, asked.returncode) == ("7\n", 0), asked.stderr


def test_a_client_runs_beside_the_projects_own_service(host: Host, tmp_path_factory: pytest.TempPathFactory):
    script = tmp_path_factory.mktemp("client") / "client.py"
    script.write_text(CLIENT)
    (script.parent / "service.py").symlink_to(host.folder / "service.py")
    done = subprocess.run(
        [sys.executable, script], env=host.env, capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.stdout, done.returncode) == ("15\n", 0), done.stderr


def test_dev_starts_in_such_a_project(project: Path):
    env = {"PATH": "/usr/bin:/bin", "HOME": str(project), "TMPDIR": str(project)}
    command = [SVC, "dev", "--tasks", "tasks", "--consumers", "1"]
    log = project / "log"
    with (
        log.open("wb") as text,
        running(*command, cwd=project, env=env, stdout=text, stderr=text) as dev,
    ):
        until(lambda: "Ctrl-C here" in log.read_text() or dev.poll() is not None, "svc dev is ready")
        assert dev.poll() is None, log.read_text()
        own = "Tasks of tasks: svc submit tasks:FUNCTION [ARG]... --wait"
        until(lambda: own in log.read_text(), "it says how to submit tasks of one's own")
