"""The bar on a real terminal, and the lines without one, of commands that wait on a real service."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.svc import DEADLINE, SVC, Host, end

TASKS = r"""
import os, time
from svc import current_job, task

@task(name="until", retries=0)
def until(path: str) -> str:
    while not os.path.exists(path):
        time.sleep(0.01)
    return os.path.basename(path)

@task(name="told", retries=0)
def told(path: str) -> None:
    current_job().progress(3, 10, "third\x1b[31m step")
    until(path)
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host = Host(tmp_path_factory.mktemp("host"))
    (host.folder / "waiting.py").write_text(TASKS)
    manager = host.start_manager("127.0.0.1:0")
    worker = host.start_worker("--tasks", "waiting", "--consumers", "3")
    yield host
    end(worker, manager)
    host.log.close()


class Terminal:
    """A command on a terminal of 100 columns, and all that it has shown."""

    def __init__(self, host: Host, *argv: str, stdout: int | None = None) -> None:
        self._ours, its = pty.openpty()
        env = {**host.env, "TERM": "xterm", "COLUMNS": "100"}
        self.process = subprocess.Popen(
            [*SVC, *argv], cwd=host.folder, env=env, stdin=its, stdout=stdout or its, stderr=its
        )
        os.close(its)
        self.shown = ""
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # so Linux tells that the terminal is closed
            while data := os.read(self._ours, 65536):
                self.shown += data.decode()
        os.close(self._ours)

    def wait_for(self, text: str) -> None:
        self.wait_for_match(re.escape(text))

    def wait_for_match(self, pattern: str) -> None:
        end = time.monotonic() + DEADLINE
        while not re.search(pattern, self.shown):
            assert time.monotonic() < end, self.shown
            assert self.process.poll() is None, self.shown
            time.sleep(0.01)

    def wait(self) -> int:
        code = self.process.wait(DEADLINE)
        self._reader.join(DEADLINE)
        return code

    @property
    def left(self) -> list[str]:
        """The lines that are left on the screen."""
        return [line.split("\r\x1b[K")[-1] for line in self.shown.split("\r\n")]


def submit(host: Host, task: str, *paths: Path) -> list[str]:
    return [host.svc("submit", task, json.dumps(str(path))).stdout.strip() for path in paths]


@pytest.mark.parametrize("verb", ["wait", "results"])
def test_a_terminal_has_a_bar_that_moves_and_is_gone_in_the_end(host: Host, tmp_path: Path, verb: str):
    first, second = submit(host, "until", tmp_path / "one", tmp_path / "two")
    screen = Terminal(host, verb, first, second)
    screen.wait_for("[------------------------]   0 %  0 of 2 done, 0 failed")
    (tmp_path / "one").touch()
    # The rate falls from 1/s on, once a second has passed.
    screen.wait_for_match(r"\[############------------\]  50 %  1 of 2 done, 0 failed, [0-9.e-]+/s, ")
    (tmp_path / "two").touch()
    assert screen.wait() == 0
    assert not any("[" in line for line in screen.left), screen.left
    if verb == "results":
        assert screen.left[:2] == [f"{first}\tone", f"{second}\ttwo"]


def test_results_in_a_file_have_no_bar_among_them(host: Host, tmp_path: Path):
    first, second = submit(host, "until", tmp_path / "one", tmp_path / "two")
    out = tmp_path / "out"
    with out.open("wb") as file:
        screen = Terminal(host, "results", first, second, stdout=file.fileno())
        screen.wait_for("0 of 2 done")
        (tmp_path / "one").touch()
        (tmp_path / "two").touch()
        assert screen.wait() == 0
    assert sorted(out.read_text().splitlines()) == sorted([f"{first}\tone", f"{second}\ttwo"])


def test_a_single_job_has_its_own_progress_in_the_bar_and_obeys_nothing(host: Host, tmp_path: Path):
    screen = Terminal(host, "submit", "told", json.dumps(str(tmp_path / "go")), "--wait")
    screen.wait_for("[#######-----------------]  30 %  3 of 10: third [31m step")
    (tmp_path / "go").touch()
    assert screen.wait() == 0
    assert "\x1b[31m" not in screen.shown


def test_ctrl_c_removes_the_bar_and_leaves_the_job_running(host: Host, tmp_path: Path):
    first, second = submit(host, "until", tmp_path / "one", tmp_path / "two")
    screen = Terminal(host, "wait", first, second)
    screen.wait_for("0 of 2 done")
    screen.process.send_signal(signal.SIGINT)
    assert screen.wait() == 130
    assert screen.left == [
        f"svc: not waited for any longer, and go on: {first} {second} - `svc wait {first}` waits again", ""
    ]  # fmt: skip
    (tmp_path / "one").touch()
    (tmp_path / "two").touch()
    assert host.svc("wait", first, second).returncode == 0


@pytest.mark.parametrize("flag", ["--quiet", "--json"])
def test_nothing_is_shown_on_a_terminal_if_so_asked(host: Host, tmp_path: Path, flag: str):
    (job,) = submit(host, "until", tmp_path / "one")
    screen = Terminal(host, "wait", job, flag, "--wait-timeout", "1.5")
    assert screen.wait() == 124
    assert "[-" not in screen.shown
    (tmp_path / "one").touch()


def test_without_a_terminal_there_are_plain_lines(host: Host, tmp_path: Path):
    first, second = submit(host, "until", tmp_path / "one", tmp_path / "two")
    (tmp_path / "one").touch()
    host.svc("wait", first)
    done = host.svc("wait", first, second, "--wait-timeout", "9")  # a line comes after 5 s
    assert done.returncode == 124
    assert "svc: 1 of 2 done, 0 failed, " in done.stderr
    assert "\x1b" not in done.stderr
    (tmp_path / "two").touch()
    assert "svc: 2 jobs: 2 done, 0 failed, in " in host.svc("wait", first, second).stderr
