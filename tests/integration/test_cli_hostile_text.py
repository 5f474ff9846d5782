"""Hostile text of jobs on a real terminal: the terminal obeys none of it, and no line is forged."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from urllib.request import urlopen

import pytest

from tests.support.hostile_text import HOSTILE, raw_in
from tests.support.svc import DEADLINE, SVC, Host, end, until

TASKS = """
from svc import task

@task(name="echo", retries=0)
def echo(text: str) -> str:
    return text

@task(name="fail", retries=0)
def fail(text: str) -> None:
    kind = type("Bad" + text, (Exception,), {})
    raise kind("message " + text)
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """A service that logs for people, with tasks that print the text of their arguments."""
    host = Host(tmp_path_factory.mktemp("host"))
    (host.folder / "hostile.py").write_text(TASKS)
    manager = host.start_manager("127.0.0.1:0", "--log-format", "console")
    worker = host.start_worker("--tasks", "hostile", "--log-format", "console")
    yield host
    end(worker, manager)
    host.log.close()


@pytest.fixture(scope="module")
def ids(host):
    """Jobs that have ended: each hostile text is the result of one, and in the error of the next."""
    jobs = [{"task": task, "args": [text]} for text in HOSTILE.values() for task in ("echo", "fail")]
    ended = host.svc("submit", "--from", "-", stdin="\n".join(map(json.dumps, jobs)))
    ids = ended.stdout.split()
    assert len(ids) == len(jobs), ended.stderr
    assert host.svc("results", *ids).returncode == 8
    return ids


def on_a_terminal(host: Host, *argv: str) -> str:
    """Return all that `svc` shows on a terminal that does not know colours."""
    ours, its = pty.openpty()
    process = subprocess.Popen(
        [*SVC, *argv], cwd=host.folder, env={**host.env, "TERM": "dumb"}, stdin=its, stdout=its, stderr=its
    )
    os.close(its)
    shown = b""
    try:
        while part := _read(ours):
            shown += part
    finally:
        os.close(ours)
        process.wait(DEADLINE)
    return shown.decode().replace("\r\n", "\n")


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # so Linux tells that the last process which had the terminal has gone
        return b""


@pytest.mark.usefixtures("ids")
@pytest.mark.parametrize(
    "command",
    [
        ["results"],
        ["results", "--json"],
        ["results", "--ndjson"],
        ["jobs", "list"],
        ["jobs", "list", "--ndjson"],
        ["metrics"],
        ["status"],
        ["queues"],
        ["workers", "--json"],
    ],
    ids=" ".join,
)
def test_a_terminal_obeys_nothing_that_a_job_says(host, command):
    shown = on_a_terminal(host, *command)
    assert shown.strip()
    assert not raw_in(shown)


def test_one_result_is_one_line_on_a_terminal(host, ids):
    lines = on_a_terminal(host, "results", *ids).splitlines()
    assert {line.split("\t")[0] for line in lines if not line.startswith("svc: ")} == set(ids[::2])
    assert len(lines) == len(ids)


def test_a_job_with_its_tracebacks_is_safe_on_a_terminal(host, ids):
    shown = on_a_terminal(host, "jobs", "show", *ids[1::2])
    assert not raw_in(shown)
    assert sum(line.startswith("attempt 1: ") for line in shown.splitlines()) == len(HOSTILE)
    words = (
        "id",
        "task",
        "queue",
        "state",
        "submitted",
        "started",
        "finished",
        "duration",
        "consumer",
        "worker",
        "code",
        "peak rss",
        "arguments",
        "failures",
        "crashes",
        "attempt",
    )
    own = (*words, "interruptions", "suspicions", "timeout", "last lines of output", "  ")
    assert [line for line in shown.splitlines() if line and not line.startswith(own)] == []


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_result_is_exact_where_a_program_reads_it(host, ids, text):
    place = list(HOSTILE.values()).index(text)
    ended = subprocess.run(
        [*SVC, "results", ids[2 * place]], cwd=host.folder, env=host.env, capture_output=True, check=True
    )
    assert ended.stdout.decode() == f"{ids[2 * place]}\t{text}\n"
    document = json.loads(host.svc("results", ids[2 * place], "--json").stdout)
    assert document[0]["value"] == text


@pytest.mark.usefixtures("ids")
def test_the_metrics_are_exact_where_a_program_reads_them(host):
    ended = subprocess.run([*SVC, "metrics"], cwd=host.folder, env=host.env, capture_output=True, check=True)
    with urlopen(f"http://{host.env['MANAGER_HTTP']}/metrics", timeout=DEADLINE) as answer:
        served = answer.read()
    mark = b"svc_job_exceptions_total{"
    assert sorted(line for line in ended.stdout.split(b"\n") if line.startswith(mark)) == sorted(
        line for line in served.split(b"\n") if line.startswith(mark)
    )


@pytest.mark.usefixtures("ids")
def test_no_record_of_the_console_log_is_forged(host):
    told = host.folder / "log"
    until(lambda: told.read_text().count("attempt_finished") >= len(HOSTILE), "all are in the log")
    log = told.read_text()
    assert not raw_in(log)
    for line in log.splitlines():
        assert line.startswith(("20", "    ")), line


def test_a_single_result_keeps_its_lines(host):
    shown = on_a_terminal(host, "submit", "echo", json.dumps("one\n\ttwo\x1b[2J\x9b"), "--wait")
    # These lines come after some seconds.
    slow = re.compile(r"^svc: (0 of 1 done, 0 failed|job \S+ waits: .*)\n", re.MULTILINE)
    assert slow.sub("", shown) == "one\n\ttwo\\x1b[2J\\x9b\n"


def test_a_traceback_of_svc_itself_is_safe(host):
    ours = {**host.env, "SVC_DEBUG": "1"}
    ended = subprocess.run(
        [*SVC, "results", "\x1b[2J\x9b\udcff"], cwd=host.folder, env=ours, capture_output=True, check=False
    )
    assert ended.returncode == 5
    assert b"Traceback" in ended.stderr
    assert not raw_in(ended.stderr.decode())
