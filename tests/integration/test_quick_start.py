"""The README's quick start, taken from its text and run line by line."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.readme import Line, blocks, lines, section
from tests.support.svc import DEADLINE, ROOT, environment, processes_with, running, until

pytestmark = pytest.mark.slow

#: Entries of a checkout that a user's commands change; all others can be shared.
CHANGED = "examples"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """A checkout as a new user has it, with the environment that `make venv` has made already."""
    if subprocess.run(["make", "-q", "venv"], cwd=ROOT, check=False, timeout=60).returncode:
        assert os.environ.get("CI") != "true", "CI runs the tests by make"
        pytest.skip("`make venv` would change the environment of this test")
    folder: Path = tmp_path_factory.mktemp("quick") / "svc"
    folder.mkdir()
    for entry in ROOT.iterdir():
        if entry.name != CHANGED:
            (folder / entry.name).symlink_to(entry)
    shutil.copytree(ROOT / CHANGED, folder / CHANGED)
    return folder


class Terminal:
    """A shell in which `svc dev` runs, and the lines that it prints for another one."""

    def __init__(self, process: subprocess.Popen[str], log: Path, folder: Path, env: dict[str, str]) -> None:
        until(lambda: "Ctrl-C here" in log.read_text() or process.poll() is not None, "svc dev is ready")
        assert process.poll() is None, log.read_text()
        told = log.read_text().partition("In another terminal:\n")[2].partition("Ctrl-C here")[0]
        self.process, self.log, self._folder, self._env = process, log, folder, env
        *self.exports, self.first = (line.strip() for line in told.splitlines() if line.strip())

    def type(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in the other terminal."""
        script = "\n".join([*self.exports, command])
        return subprocess.run(
            ["bash", "-c", script], cwd=self._folder, env=self._env, capture_output=True, text=True,
            timeout=DEADLINE, check=False,
        )  # fmt: skip


@pytest.fixture(scope="module")
def terminal(checkout, tmp_path_factory) -> Iterator[Terminal]:
    start, _ = blocks(section("Five minutes"))
    log = tmp_path_factory.mktemp("dev") / "log"
    env = environment(TMPDIR=log.parent)
    del env["PYTHONPATH"]  # a new user has none
    with (
        log.open("w") as output,
        running("bash", "-ec", start.rstrip() + "; exit $?", cwd=checkout, env=env, stdout=output,
                stderr=output, start_new_session=True) as process,
    ):  # fmt: skip
        yield Terminal(process, log, checkout / CHANGED, env)
        os.killpg(process.pid, signal.SIGINT)
        process.wait(DEADLINE / 2)
    until(lambda: not processes_with(str(log.parent)), "svc dev and its processes end")


def test_every_line_of_the_quick_start_does_what_its_comment_says(terminal):
    _, commands = blocks(section("Five minutes"))
    typed = lines(commands)
    assert len(typed) > 5
    dead = ""
    for line in typed:
        done = terminal.type(re.sub(r"\bID\b", dead, line.command))
        said = f"{line}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == line.exit_code, said
        assert "Traceback" not in done.stderr, said
        assert line.printed is None or done.stdout.strip() == line.printed, said
        if line.command == "svc jobs list --state dead":
            dead = _first_id(done.stdout)
    assert dead


def _first_id(listed: str) -> str:
    return listed.splitlines()[1].split()[0]


def test_after_the_quick_start_nothing_is_lost(terminal):
    """A drain and its end, as its last line has it: the jobs, their results and a worker are there."""
    submitted = terminal.type("svc submit mytasks:add 20 22 > before; svc results --from before")
    assert submitted.returncode == 0, submitted.stderr
    for drain in ("svc drain; svc resume", "svc drain --worker dev; svc resume --worker dev"):
        assert terminal.type(drain).returncode == 0
        assert terminal.process.poll() is None, terminal.log.read_text()
        assert terminal.type("svc results --from before").stdout == submitted.stdout
        assert terminal.type("svc submit mytasks:add 2 3 --wait").stdout == "5\n"


def test_jobs_that_wait_during_a_drain_run_after_it(terminal):
    waits = terminal.type("svc drain && svc submit mytasks:add 1 1 > waits && svc jobs show $(cat waits)")
    assert "draining" in waits.stdout, waits.stderr
    assert "comes back at `svc resume`" in terminal.log.read_text()
    assert terminal.type("svc resume && svc results --from waits").stdout.endswith("\t2\n")


def test_a_changed_task_is_run_as_it_is_now_and_no_job_is_lost(terminal, checkout):
    """A mistake is mended, and the dead job is tried again."""
    module = checkout / CHANGED / "mytasks.py"
    right = module.read_text()
    kept = terminal.type("svc submit mytasks:add 4 5 > kept; svc results --from kept").stdout
    for wrong in (right.replace("return a + b", "return a +"), right.replace("return a + b", "return a - b")):
        replace(module, wrong)
        until(lambda: terminal.log.read_text().count("the tasks have changed") % 2, "the worker is replaced")
        replace(module, right)
        until(lambda: not terminal.log.read_text().count("the tasks have changed") % 2, "it is again")
        assert terminal.type("svc submit mytasks:add 2 3 --wait").stdout == "5\n"
        assert terminal.type("svc results --from kept").stdout == kept


def replace(module: Path, text: str) -> None:
    """Change a module at once: `svc dev` would take an empty one, half-way, for another change."""
    draft = module.with_suffix(".draft")
    draft.write_text(text)
    draft.replace(module)


def test_the_first_command_that_dev_prints_needs_nothing_but_the_lines_before_it(terminal):
    done = terminal.type(f"cd / && {terminal.first}")
    assert (done.returncode, done.stdout) == (0, "42\n"), done.stderr


@pytest.mark.parametrize(
    ("line", "exit_code", "printed"),
    [
        (Line("x", "exit code 8: it failed"), 8, None),
        (Line("x", "5"), 0, "5"),
        (Line("x", "one job a line"), 0, None),
    ],
)
def test_a_comment_says_how_a_command_ends(line, exit_code, printed):
    assert (line.exit_code, line.printed) == (exit_code, printed)
