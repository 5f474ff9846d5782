"""Commands for one terminal: `svc demo`, `svc dev`, and the examples on it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.svc import DEADLINE, EXAMPLES, SVC, environment, processes_with, running, until


@pytest.fixture(scope="module")
def dev(tmp_path_factory):
    """`svc dev` with the tasks of the word count, as its README starts it, and the exports it prints."""
    folder = tmp_path_factory.mktemp("dev")
    (folder / "bin").mkdir()
    shim = folder / "bin" / "svc"
    shim.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m svc "$@"\n')
    shim.chmod(0o755)
    (folder / "bin" / "python").symlink_to(sys.executable)
    env = environment(TMPDIR=folder, PATH=f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    log = folder / "log"
    command = [*SVC, "dev", "--tasks", "tasks,mytasks", "--consumers", "2"]
    own = env | {"PYTHONPATH": f"{env['PYTHONPATH']}{os.pathsep}{EXAMPLES}"}
    with (
        log.open("wb") as stderr,
        running(*command, cwd=EXAMPLES / "wordcount", env=own, stderr=stderr, stdout=stderr) as process,
    ):
        until(lambda: "Ctrl-C here" in log.read_text() or process.poll() is not None, "svc dev is ready")
        assert process.poll() is None, log.read_text()
        exports = dict(re.findall(r"export (\w+)=(\S+)", log.read_text()))
        (first,) = re.findall(r"^  (svc submit .*)$", log.read_text(), re.MULTILINE)
        yield process, env | exports, folder, first


class TestDemo:
    def test_the_demo_is_the_textbook_program_and_leaves_nothing(self, tmp_path):
        env = environment(TMPDIR=tmp_path)
        ended = subprocess.run(
            [*SVC, "demo"],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        fancy = re.findall(r"^Doing something fancy in worker-\d+ for (.*)$", ended.stdout, re.MULTILINE)
        assert sorted(fancy) == [f"Fancy Dan {number}" for number in range(3)]
        results = {line for line in ended.stdout.splitlines() if line.startswith("Result: ")}
        assert results == {f"Result: {i} * {i} = {i * i}" for i in range(40)}
        assert len(ended.stdout.splitlines()) == 43
        assert re.search(r"drained with \d+ pills \(the order to stop\), one for each consumer", ended.stderr)
        assert ended.stderr.count("/metrics") == 2
        assert re.search(r" (1 consumer|\d+ consumers) so far$", ended.stderr, re.MULTILINE)
        assert "1 consumers" not in ended.stderr
        assert list(tmp_path.iterdir()) == []
        assert processes_with(str(tmp_path)) == []

    def test_a_demo_that_is_stopped_leaves_nothing_either(self, tmp_path):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        with running(*SVC, "demo", cwd=tmp_path, env=environment(TMPDIR=tmp_path), **pipes) as process:
            process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            process.stdout.read()
            assert process.wait(DEADLINE) == 130
        assert list(tmp_path.iterdir()) == []
        assert processes_with(str(tmp_path)) == []


class TestDev:
    def test_the_first_command_that_dev_prints_works(self, dev):
        _, env, folder, first = dev
        ended = subprocess.run(
            ["sh", "-c", first], cwd=folder, env=env, capture_output=True, text=True, check=True
        )
        assert ended.stdout == "42\n"

    def test_the_commands_of_the_word_count_are_as_its_readme_says(self, dev, tmp_path):
        _, env, _, _ = dev
        readme = (EXAMPLES / "wordcount" / "README.md").read_text()
        (script,) = re.findall(r"```\n(python make_jobs.*?)```\n\n```\n(.*?)…", readme, re.DOTALL)
        for name in ("make_jobs.py", "total.py", "texts"):
            (tmp_path / name).symlink_to(EXAMPLES / "wordcount" / name)
        ended = subprocess.run(
            ["sh", "-ec", script[0]],
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            check=True,
            timeout=DEADLINE,
        )
        assert ended.stdout.startswith(script[1])
        assert (tmp_path / "jobs.ndjson").read_text() == (EXAMPLES / "wordcount" / "jobs.ndjson").read_text()
        first = (tmp_path / "ids").read_text()
        again = ["svc", "submit", "--from", "jobs.ndjson"]
        assert subprocess.check_output(again, cwd=tmp_path, env=env, text=True) == first

    def test_the_seed_as_a_user_writes_it(self, dev):
        _, env, folder, _ = dev
        ended = subprocess.run(
            [sys.executable, str(EXAMPLES / "textbook.py")],
            cwd=folder,
            env=env,
            capture_output=True,
            text=True,
            check=True,
        )
        assert set(ended.stdout.splitlines()) == {f"Result: {i} * {i} = {i * i}" for i in range(40)}

    def test_tasks_of_ones_own(self, dev):
        _, env, folder, _ = dev
        greeting = ["svc", "submit", "greet", "Ada", "--kwargs", '{"loud": true}', "--wait"]
        assert subprocess.check_output(greeting, cwd=folder, env=env, text=True) == "HELLO, ADA!\n"
        addition = ["svc", "submit", "mytasks:add", "2", "3", "--wait"]
        assert subprocess.check_output(addition, cwd=folder, env=env, text=True) == "5\n"

    def test_a_plain_client_produces_and_consumes(self, dev):
        _, env, folder, _ = dev
        plain = [sys.executable, str(EXAMPLES / "plain_client.py")]
        bare = {name: value for name, value in env.items() if name != "PYTHONPATH"}
        run = {"cwd": folder, "env": bare, "text": True, "timeout": DEADLINE}
        submitted = subprocess.check_output([*plain, "submit", "--count", "3"], **run)
        assert set(submitted.splitlines()) == {"Result: 0", "Result: 1", "Result: 4"}
        with running(*plain, "consume", cwd=folder, env=bare, stdout=subprocess.DEVNULL) as consumer:
            produced = subprocess.check_output([*plain, "produce", "--count", "3"], **run)
            assert produced.splitlines() == [f"Result: {i} * {i} = {i * i}" for i in range(3)]
            assert consumer.wait(DEADLINE) == 0

    def test_ctrl_c_ends_dev_and_all_it_started(self, dev):
        """The last of the class: it ends the service that the others used."""
        process, env, _, _ = dev
        process.send_signal(signal.SIGINT)
        assert process.wait(DEADLINE) == 0
        assert not Path(env["SVC_AUTHKEY_FILE"]).parent.exists()
        assert processes_with(str(Path(env["SVC_AUTHKEY_FILE"]).parent)) == []
