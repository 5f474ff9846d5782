"""`svc logs` on a real service: its text, its bytes, its terminal."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import subprocess

import pytest

from tests.support.hostile_text import HOSTILE, raw_in
from tests.support.svc import DEADLINE, SVC, Host, end

TASKS = r"""
import logging, os, signal, sys, time
from svc import task

@task(name="say", retries=0)
def say(out: str, err: str = "") -> None:
    sys.stdout.write(out)
    sys.stderr.write(err)

@task(name="binary", retries=0)
def binary() -> None:
    os.write(1, bytes(range(256)) * 4)

@task(name="endless", retries=0)
def endless() -> None:
    os.write(1, b"x" * 3_000_000)

@task(name="again", retries=1, backoff=0.001)
def again() -> None:
    print("trying")
    raise ValueError("no")

@task(name="killed", retries=0)
def killed() -> None:
    print("last words")
    os.kill(os.getpid(), signal.SIGKILL)

@task(name="until", retries=0)
def until(path: str) -> None:
    print("begun")
    while not os.path.exists(path):
        time.sleep(0.01)
    print("done")
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    host = Host(tmp_path_factory.mktemp("host"))
    (host.folder / "printing.py").write_text(TASKS)
    manager = host.start_manager("127.0.0.1:0")
    worker = host.start_worker("--tasks", "printing", "--consumers", "1")
    yield host
    end(worker, manager)
    host.log.close()


def run(host: Host, task: str, *args: object) -> str:
    """Run a job; return its id once all of its output is there."""
    (job,) = host.svc("submit", task, *map(json.dumps, args)).stdout.split()
    follow = [*SVC, "logs", job, "--follow"]
    subprocess.run(
        follow, cwd=host.folder, env=host.env, stdout=subprocess.DEVNULL, check=True, timeout=DEADLINE
    )
    return job


def test_output_is_printed_by_stream(host: Host):
    job = run(host, "say", "out\n", "err\n")
    assert sorted(host.svc("logs", job).stdout.splitlines()) == ["err", "out"]
    assert host.svc("logs", job, "--stdout").stdout == "out\n"
    assert host.svc("logs", job, "--stderr").stdout == "err\n"


def test_each_attempt_can_be_named(host: Host):
    job = run(host, "again")
    assert host.svc("logs", job, "--attempt", "1").stdout == "trying\n"


@pytest.mark.parametrize("follow", [(), ("--follow",)])
def test_an_attempt_that_never_was_is_exit_code_5_and_told_with_those_that_were(host: Host, follow):
    told = host.svc("logs", job := run(host, "again"), "--attempt", "3", *follow)
    assert (told.stdout, told.returncode) == ("", 5)
    assert f"there is no attempt 3 at {job}; its attempts are 1 to 2, with output: 1, 2" in told.stderr
    told = host.svc("logs", job := run(host, "say", ""), "--attempt", "2", "--json", *follow)
    assert told.returncode == 5
    error = json.loads(told.stderr)["error"]
    assert error["code"] == "unknown_attempt"
    assert error["message"] == f"there is no attempt 2 at {job}; its only attempt is 1"
    told = host.svc("logs", job, "--attempt", "1", *follow)
    assert (told.stdout, told.returncode) == ("", 0)
    assert "there is no output" in told.stderr


def test_a_job_that_waits_has_had_no_attempt(host: Host):
    (job,) = host.svc("submit", "say", '""', "--delay", "1d").stdout.split()
    told = host.svc("logs", job, "--attempt", "1")
    assert told.returncode == 5
    assert f"there is no attempt 1 at {job}; none has begun" in told.stderr
    assert host.svc("logs", job).returncode == 0


def test_a_killed_process_has_output(host: Host):
    assert host.svc("logs", run(host, "killed")).stdout == "last words\n"


def test_follow_goes_on_until_the_job_ends(host: Host):
    gate = host.folder / "gate"
    (job,) = host.svc("submit", "until", json.dumps(str(gate))).stdout.split()
    process = subprocess.Popen(
        [*SVC, "logs", job, "--follow"], cwd=host.folder, env=host.env, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        gate.touch()
        assert process.stdout.readline() == "done\n"
        assert process.wait(DEADLINE) == 0


@pytest.mark.parametrize("form", [(), ("--ndjson",)])
def test_follow_tells_why_a_job_does_not_run_until_it_ends(host: Host, form):
    (job,) = host.svc("submit", "say", '""', "--queue", "nobody-serves").stdout.split()
    process = subprocess.Popen(
        [*SVC, "logs", job, "--follow", *form],
        cwd=host.folder,
        env=host.env,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stderr is not None
        told = process.stderr.readline()
        host.svc("jobs", "cancel", job)
        assert process.stderr.readline() == f"svc: there is no output of {job}\n"
        assert process.wait(DEADLINE) == 0
    assert job in told
    assert "no connected worker takes jobs from the queue" in told


def test_bytes_come_out_as_they_are(host: Host):
    job = run(host, "binary")
    done = subprocess.run(
        [*SVC, "logs", job], cwd=host.folder, env=host.env, capture_output=True, check=True, timeout=DEADLINE
    )
    assert done.stdout == bytes(range(256)) * 4


def test_ndjson_has_a_document_for_each_piece(host: Host):
    job = run(host, "say", "one\n")
    (document,) = map(json.loads, host.svc("logs", job, "--ndjson").stdout.splitlines())
    assert document == {"attempt": 1, "stream": "stdout", "offset": 0, "text": "one\n"}


def test_a_terminal_obeys_nothing_in_the_output(host: Host):
    for job in (run(host, "say", "".join(HOSTILE.values())), run(host, "binary"), run(host, "endless")):
        shown = on_a_terminal(host, "logs", job)
        assert not raw_in(shown), job
    assert len(shown) < 1_000_000


def test_an_unknown_job_is_exit_code_5(host: Host):
    assert host.svc("logs", "nobody-0").returncode == 5


def on_a_terminal(host: Host, *argv: str) -> str:
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [*SVC, *argv], cwd=host.folder, env={**host.env, "TERM": "dumb"}, stdin=its, stdout=its, stderr=its
    )
    os.close(its)
    shown = b""
    with contextlib.suppress(OSError):  # so Linux tells that the terminal is closed
        while data := os.read(ours, 65536):
            shown += data
    os.close(ours)
    assert process.wait(DEADLINE) == 0
    return shown.decode().replace("\r\n", "\n")
