"""Shell commands on a whole service: examples of the page, ends of processes, and who may submit them."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from svc.domain.job import SHELL, Cause
from svc.domain.lifecycle import JobState
from svc.domain.limits import Limits
from svc.worker.control_group import worker_group
from tests.support.processes import alive
from tests.support.readme import blocks, lines
from tests.support.svc import ROOT, SVC, Host, end, ended_late, first_line
from tests.support.workers import Client, Manager, Worker, options, until

PAGE = (ROOT / "docs" / "shell.md").read_text(encoding="utf-8")
#: Seconds for a command in which it must have begun: the next one is for a machine that was too slow.
LIMITS = (0.5, 3.0, 20.0)
COMMANDS = [line for block in blocks(PAGE) for line in lines(block)][1:]


@pytest.fixture
def worker(manager: Manager):
    worker = Worker(manager.address, options(1, tasks=(), shell=True, grace=1.0))
    worker.start()
    yield worker
    worker.end()


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory):
    host = Host(tmp_path_factory.mktemp("shell"))
    keys = str(host.folder / "keys")
    assert host.svc("auth", "generate", "--all", keys).returncode == 0
    manager = host.start_manager("127.0.0.1:0", "--role-keys", keys)
    worker = host.start_worker("--shell")
    folder = host.folder / "bin"
    folder.mkdir()
    script = folder / "svc"
    script.write_text(f'#!/bin/sh\nexec {sys.executable} -m svc "$@"\n')
    script.chmod(0o755)
    host.env["PATH"] = f"{folder}:{host.env['PATH']}"
    yield host
    end(worker, manager)
    host.log.close()


@pytest.mark.slow
def test_the_examples_of_the_page_do_as_it_says(host: Host):
    for line in COMMANDS:
        ended = subprocess.run(
            ["sh", "-c", line.command], cwd=host.folder, env=host.env, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert ended.returncode == line.exit_code, (line.command, ended.stderr)
        if line.comment and not line.exit_code:
            assert ended.stdout == f"{line.comment}\n"
        if "scripts --wait" in line.command:
            assert sorted(ended.stdout.split()) == ["eno", "owt"]
        if "seq 100" in line.command:
            assert len({json.loads(each)["id"] for each in ended.stdout.splitlines()}) == 100
    assert sorted(path.name for path in host.folder.glob("*.bak")) == ["a.txt.bak", "b c.txt.bak"]


@pytest.mark.parametrize(
    ("role", "code"), [("submit", 4), ("work", 4), ("read", 4), ("shell", 0), ("admin", 0)]
)
def test_only_a_key_for_shell_and_the_admins_submit_commands(host: Host, role: str, code: int):
    key = host.folder / "keys" / f"{role}.key"
    mark = host.folder / f"by-{role}"
    ended = host.svc("run", "--wait", "--", "touch", str(mark), SVC_AUTHKEY_FILE=key)
    assert ended.returncode == code, ended.stderr
    assert mark.exists() == (code == 0)


def test_the_output_of_a_command_is_in_its_logs_with_the_streams_apart(host: Host):
    script = 'echo "out of $SVC_JOB_ID"; echo err >&2; printf "\\033[2J\\377" >&2'
    job = host.svc("run", "--", "sh", "-c", script).stdout.strip()
    followed = subprocess.run(
        [*SVC, "logs", job, "--follow", "--stdout"], cwd=host.folder, env=host.env, capture_output=True,
        timeout=60, check=True,
    )  # fmt: skip
    assert followed.stdout == f"out of {job}\n".encode()
    shown = subprocess.run(
        [*SVC, "logs", job, "--stderr"], cwd=host.folder, env=host.env, capture_output=True, check=True,
        timeout=60,
    )  # fmt: skip
    assert shown.stdout == b"err\n\x1b[2J\xff"


def test_a_failed_command_has_exit_code_output_and_duration_as_its_outcome(host: Host):
    script = ["sh", "-c", "echo hi; exit 3"]
    found = json.loads(host.svc("run", "--wait", "--json", "--", *script).stdout)
    assert (found["exit_code"], found["seconds"] > 0) == (3, True)
    assert "hi" in found["error"]["traceback"]
    told = host.svc("run", "--wait", "--", *script)
    assert (told.returncode, told.stdout, told.stderr.splitlines()[:2]) == (8, "", ["stdout:", "hi"])


def test_the_output_of_a_command_is_shown_while_it_runs(host: Host):
    job = host.svc("run", "--job-timeout", "60s", "--", "sh", "-c", "echo begun; sleep 300").stdout.strip()
    follow = [*SVC, "logs", job, "--follow"]
    with subprocess.Popen(follow, cwd=host.folder, env=host.env, stdout=subprocess.PIPE) as shown:
        try:
            assert first_line(shown) == b"begun\n"
            assert host.svc("jobs", "cancel", job, "--grace", "0").returncode == 0
            assert shown.wait(60) == 0
        finally:
            shown.kill()


def test_a_consumer_is_in_a_control_group_of_its_own_if_that_is_allowed(host: Host):
    with worker_group() as allowed:
        pass
    own = host.svc("run", "--wait", "--", "sh", "-c", "grep ^0:: /proc/self/cgroup; echo $PPID").stdout
    group, _, consumer = own.strip().rpartition("\n")
    assert (Path(group).name == consumer) is bool(allowed)


def test_a_worker_without_shell_runs_no_command(manager: Manager, client: Client, tmp_path: Path):
    worker = Worker(manager.address, options(1))
    worker.start()
    try:
        (job,) = client.submit(SHELL, (["touch", str(tmp_path / "mark")],))
        until(lambda: client.view(job).reason.endswith("start one with `--shell`"))
    finally:
        worker.end()
    assert not (tmp_path / "mark").exists()


def pids(path: Path, count: int) -> list[int]:
    until(lambda: path.exists() and len(path.read_text().split()) == count)
    return [int(each) for each in path.read_text().split()]


def script(path: Path, then: str) -> list[str]:
    """Return a command that starts a child and a detached process, and writes the numbers of all."""
    text = (
        f"sleep 300 & a=$!; setsid sleep 300 & b=$!; echo $$ $a $b > {path}.new; mv {path}.new {path}; {then}"
    )
    return ["sh", "-c", text]


@pytest.mark.parametrize(
    ("then", "state"), [("exit 0", "succeeded"), ("exit 1", "dead"), ("kill -9 $$", "dead")]
)
def test_what_a_command_has_started_ends_with_it(
    then: str, state: str, worker: Worker, client: Client, tmp_path: Path
):
    (outcome,) = client.outcomes(client.submit(SHELL, (script(tmp_path / "pids", then),)))
    assert outcome.state.word == state
    assert not any(map(alive, pids(tmp_path / "pids", 3)))


def test_a_timeout_ends_the_command_and_keeps_the_consumer(worker: Worker, client: Client, tmp_path: Path):
    for seconds in LIMITS:
        jobs = client.submit(SHELL, (script(tmp_path / "pids", "echo begun; sleep 300"),), timeout=seconds)
        (outcome,) = client.outcomes(jobs)
        assert outcome.state is JobState.DEAD
        (view,) = client.broker.get(jobs)
        assert [each.cause for each in view.attempts] == [Cause.TIMED_OUT]
        if (tmp_path / "pids").exists():
            break
    assert "begun" in view.attempts[0].error.traceback
    assert not any(map(alive, pids(tmp_path / "pids", 3)))
    (again,) = client.submit(SHELL, (["true"],))
    (outcome,) = client.outcomes([again])
    assert outcome.state is JobState.SUCCEEDED
    assert not worker.events("consumer_killed")


@pytest.mark.parametrize("end_of", ["consumer", "worker", "stop"])
def test_a_command_ends_with_its_consumer(end_of: str, worker: Worker, client: Client, tmp_path: Path):
    client.submit(SHELL, (script(tmp_path / "pids", "sleep 300"),))
    started = pids(tmp_path / "pids", 3)
    parent = int(Path(f"/proc/{started[0]}/stat").read_text().rpartition(")")[2].split()[1])
    match end_of:
        case "consumer":
            os.kill(parent, signal.SIGKILL)
        case "worker":
            worker.signal(signal.SIGKILL)
        case "stop":
            worker.signal(signal.SIGTERM)
    until(lambda: not any(map(alive, started)))


def test_a_cancel_ends_the_command_and_all_that_it_has_started(
    worker: Worker, client: Client, tmp_path: Path
):
    (job,) = client.submit(SHELL, (script(tmp_path / "pids", "trap '' TERM INT; sleep 300"),))
    started = pids(tmp_path / "pids", 3)
    client.broker.cancel([job], running=True)
    until(lambda: not any(map(alive, started)))
    until(lambda: client.state(job) == "cancelled")


def test_a_terminal_obeys_no_output_of_a_command(host: Host):
    ours, its = pty.openpty()
    command = [*SVC, "run", "--wait", "--", "printf", r"\033[2J\377\n\rend\n"]
    process = subprocess.Popen(
        command, cwd=host.folder, env={**host.env, "TERM": "dumb"}, stdin=its, stdout=its, stderr=its
    )
    os.close(its)
    shown = b""
    # So Linux tells that the terminal is closed.
    with ended_late(process), contextlib.suppress(OSError):
        while data := os.read(ours, 65536):
            shown += data
    os.close(ours)
    assert process.wait(60) == 0
    assert b"\x1b" not in shown
    assert b"\xff" not in shown
    assert r"\x1b[2J" in shown.decode()


@pytest.mark.slow
def test_100_000_lines_from_stdin_are_submitted_in_flat_memory(host: Host, tmp_path: Path):
    peaks = []
    for count in (2_000, 100_000):
        text = "".join(f"line {number}\n" for number in range(count))
        (tmp_path / "lines").write_text(text)
        with (tmp_path / "lines").open() as stdin, (tmp_path / "ids").open("w") as ids:
            command = [*SVC, "run", "--each-line", "-", "--queue", "later", "--", "echo"]
            process = subprocess.Popen(command, cwd=host.folder, env=host.env, stdin=stdin, stdout=ids)
            with ended_late(process, 90):
                _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        assert len((tmp_path / "ids").read_text().split()) == count
        peaks.append(usage.ru_maxrss)
    assert peaks[1] < peaks[0] + 16 * 1024, peaks


def test_an_interruption_ends_a_command_with_what_it_has_started(
    worker: Worker, client: Client, tmp_path: Path
):
    for seconds in LIMITS:
        command = script(tmp_path / "pids", "sleep 300")
        (outcome,) = client.outcomes(client.submit(SHELL, (command,), soft_timeout=seconds))
        assert outcome.error is not None
        assert outcome.error.type == "SoftTimeout"
        if (tmp_path / "pids").exists():
            break
    assert not any(map(alive, pids(tmp_path / "pids", 3)))


def test_a_command_over_its_memory_is_ended_and_another_one_runs(host: Host):
    hog = f"{sys.executable} -c 'import time; x = bytearray(400 << 20); time.sleep(60)'"
    ended = host.svc("run", "--wait", "--max-rss", "300MiB", "--", "sh", "-c", hog)
    assert ended.returncode == 8, ended.stderr
    assert "300" in ended.stderr
    assert host.svc("run", "--wait", "echo", "again").stdout == "again\n"


@pytest.mark.long
@pytest.mark.slow
def test_a_command_that_leaves_its_consumer_no_descriptors_is_dead_after_a_few_consumers(
    client: Client, worker: Worker
):
    limit = "import os, resource; resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (0, 0))"
    (job,) = client.submit(SHELL, ([sys.executable, "-c", limit],))

    client.outcomes([job])

    assert client.view(job).state == "dead"
    assert len(worker.events("descriptors_exhausted")) <= Limits().suspicion_budget + 1
