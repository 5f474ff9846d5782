"""`svc dev --reload`: a changed file of the tasks is loaded by the worker that runs."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.svc import DEADLINE, SVC, environment, running, until

TASKS = """
import os, time, reloaded_part
def version(path=""):
    while path and not os.path.exists(path):
        time.sleep(0.01)
    return [{version!r}, reloaded_part.VERSION]
"""


def save(path: Path, text: str) -> None:
    """Save a file as editors do: another one takes its place."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text)
    new.replace(path)


class Dev:
    """`svc dev --reload` in a folder."""

    def __init__(self, folder: Path, log: Path, settings: dict[str, str]) -> None:
        self.folder, self._log, self._settings = folder, log, settings

    @property
    def log(self) -> str:
        return self._log.read_text()

    def svc(self, *argv: str) -> str:
        return subprocess.run(
            [*SVC, *argv],
            cwd=self.folder,
            env=environment(**self._settings),
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=True,
        ).stdout

    def submit(self, *args: str) -> str:
        return self.svc("submit", "reloaded_tasks:version", *args).strip()

    def version(self) -> Any:
        return json.loads(self.svc("submit", "reloaded_tasks:version", "--wait"))

    def worker(self) -> dict[str, Any]:
        workers: list[dict[str, Any]] = json.loads(self.svc("workers", "--json"))
        (worker,) = workers
        return worker


@pytest.fixture
def dev(tmp_path: Path) -> Iterator[Dev]:
    with started(tmp_path) as made:
        yield made


@contextmanager
def started(folder: Path) -> Iterator[Dev]:
    save(folder / "reloaded_tasks.py", TASKS.format(version="one"))
    save(folder / "reloaded_part.py", "VERSION = 'one'\n")
    log = folder / "log"
    command = [*SVC, "dev", "--reload", "--tasks", "reloaded_tasks", "--consumers", "1"]
    with (
        log.open("w") as output,
        running(*command, cwd=folder, env=environment(), stdout=output, stderr=output) as process,
    ):
        until(lambda: "Ctrl-C here" in log.read_text() or process.poll() is not None, "svc dev is ready")
        assert process.poll() is None, log.read_text()
        yield Dev(folder, log, dict(re.findall(r"export (\w+)=(\S+)", log.read_text())))
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 0


def becomes(dev: Dev, wanted: list[str]) -> Callable[[], bool]:
    return lambda: dev.version() == wanted


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the reload is tried on Linux")
def test_a_saved_file_is_loaded_by_the_worker_that_runs_and_a_mistake_is_not(dev: Dev):
    assert dev.version() == ["one", "one"]
    worker = dev.worker()
    long = dev.submit(json.dumps(str(dev.folder / "end")))
    until(lambda: json.loads(dev.svc("jobs", "show", long, "--json"))["state"] == "leased", "it runs")

    save(dev.folder / "reloaded_part.py", "VERSION = 'two'\n")
    until(becomes(dev, ["one", "two"]), "the helper is loaded again")
    assert "(reloaded_part.py); the worker loads them again\n" in dev.log
    (dev.folder / "end").touch()
    until(lambda: json.loads(dev.svc("jobs", "show", long, "--json"))["state"] == "succeeded", "it ends")
    job = json.loads(dev.svc("jobs", "show", long, "--json"))
    assert (job["content"]["result"], job["interruptions"]) == (["one", "one"], 0)

    save(dev.folder / "reloaded_tasks.py", "def version(:\n")
    until(lambda: "reloaded_tasks.py, line 1: " in dev.log, "the mistake is told")
    (line,) = [line for line in dev.log.splitlines() if "line 1: " in line]
    assert line.endswith("the worker goes on with the code that it has")
    assert dev.version() == ["one", "two"]

    save(dev.folder / "reloaded_tasks.py", TASKS.format(version="six"))
    until(becomes(dev, ["six", "two"]), "the mended file is loaded")
    now = dev.worker()
    same = (worker["pid"], worker["connected_at"])
    assert (now["pid"], now["connected_at"]) == same, "it is the same worker"
    assert now["code"] != worker["code"]


@pytest.mark.slow
def test_what_is_no_source_reloads_nothing(dev: Dev):
    assert dev.version() == ["one", "one"]
    (dev.folder / "__pycache__").mkdir(exist_ok=True)
    for name in (".reloaded_tasks.py.swp", "notes.txt", "__pycache__/reloaded_tasks.py"):
        (dev.folder / name).write_text("x")
    save(dev.folder / "reloaded_part.py", "VERSION = 'one'\n")
    save(dev.folder / "reloaded_new.py", "")  # the sign that all before was looked at
    until(lambda: "(reloaded_new.py)" in dev.log, "the new file is told")
    assert dev.log.count("the worker loads them again") == 1
