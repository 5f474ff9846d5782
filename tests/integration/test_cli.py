"""`svc` as people run it: real processes, a real manager and worker, real files."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import time
from functools import partial

import pytest

from tests.support.svc import DEADLINE, SVC, Host, end, running, until


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """A manager and a worker for the tests that leave both as they are."""
    host = Host(tmp_path_factory.mktemp("host"))
    manager = host.start_manager()
    worker = host.start_worker()
    yield host
    end(worker, manager)
    host.log.close()


@pytest.fixture
def alone(tmp_path):
    """A folder with an authkey, and the processes that a test starts there."""
    host = Host(tmp_path)
    yield host
    host.log.close()


def errors(said: str) -> list[str]:
    """Return the lines of *said*, but for those of a wait that takes some seconds on a busy host."""
    slow = r"svc: (0 of 1 done, 0 failed|job \S+ waits: .*)"
    return [line for line in said.splitlines() if not re.fullmatch(slow, line)]


class TestWork:
    def test_a_job_makes_the_round(self, host):
        ended = host.svc("submit", "multiply", "6", "7", "--wait")
        assert (ended.returncode, ended.stdout, errors(ended.stderr)) == (0, "42\n", [])

    def test_ids_and_their_results_in_ndjson(self, host):
        ids = [host.svc("submit", "multiply", str(number), "2").stdout.strip() for number in range(3)]
        ended = host.svc("results", *ids, "--ndjson")
        found = {outcome["id"]: outcome["value"] for outcome in map(json.loads, ended.stdout.splitlines())}
        assert found == {name: number * 2 for number, name in enumerate(ids)}

    def test_a_stream_of_2500_lines_with_a_bad_one(self, host):
        lines = [json.dumps({"task": "multiply", "args": [number, 2]}) for number in range(2500)]
        lines[1700] = '{"task": "multiply", "args": [1,'
        ended = host.svc("submit", "--from", "-", stdin="\n".join(lines))
        ids = ended.stdout.splitlines()
        assert (ended.returncode, len(ids)) == (7, 2499)
        assert ended.stderr.startswith("svc: line 1701: not a job:")
        results = host.svc("results", *ids[1695:1705], "--ndjson")
        values = {found["id"]: found["value"] for found in map(json.loads, results.stdout.splitlines())}
        expected = [number * 2 for number in range(2500) if number != 1700]
        assert [values[name] for name in ids[1695:1705]] == expected[1695:1705]

    def test_a_producer_that_pauses_sees_its_job_accepted(self, host):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        with running(*SVC, "submit", "--from", "-", cwd=host.folder, env=host.env, **pipes) as process:
            for number in range(2):
                process.stdin.write(json.dumps({"task": "multiply", "args": [number, 1]}) + "\n")
                process.stdin.flush()
                name = process.stdout.readline().strip()
                assert host.svc("results", name).stdout == f"{name}\t{number}\n"
            process.stdin.close()
            assert process.wait(DEADLINE) == 0

    def test_a_job_that_fails_is_tried_again_and_then_shown_with_its_traceback(self, host):
        ended = host.svc("submit", "fail", "not today", "--wait")
        assert (ended.returncode, ended.stdout) == (8, "")
        assert "ValueError: not today" in ended.stderr
        (name,) = re.findall(r"svc jobs show (\S+)`", ended.stderr)
        shown = host.svc("jobs", "show", name).stdout
        assert "failures       2" in shown
        assert "attempt 2: failed" in shown
        assert "raise ValueError(message)" in shown

    def test_arguments_that_do_not_fit_are_refused_at_once(self, host):
        ended = host.svc("submit", "multiply", "six", "7", "--wait")
        assert ended.returncode == 8
        assert "ArgumentError" in ended.stderr

    def test_a_task_nobody_knows_waits_with_the_reason(self, host):
        name = host.svc("submit", "no:such").stdout.strip()
        job = json.loads(host.svc("jobs", "show", name, "--json").stdout)
        assert job["state"] == "ready"
        assert "knows the task 'no:such'" in job["reason"]
        assert "no:such" in host.svc("status").stderr
        assert host.svc("submit", "no:such", "--strict").returncode == 5
        assert host.svc("jobs", "cancel", name).returncode == 0

    def test_a_waiting_job_gives_124_and_one_that_is_timed_out_8(self, host):
        assert (
            host.svc(
                "submit", "multiply", "1", "1", "--delay", "1h", "--wait", "--wait-timeout", "0.2"
            ).returncode
            == 124
        )
        for _ in range(8):  # a consumer of a busy machine may not write its stacks in the time that it has
            ended = host.svc("submit", "sleep", "60", "--job-timeout", "0.5", "--retries", "0", "--wait")
            assert ended.returncode == 8
            assert "timeout" in ended.stderr
            (name,) = re.findall(r"svc jobs show (\S+)`", ended.stderr)
            (outcome,) = map(json.loads, host.svc("results", name, "--ndjson").stdout.splitlines())
            stack = outcome["error"]["traceback"]
            if stack.startswith("Current thread (most recent call first):"):
                break
        else:
            pytest.fail(f"no stack of the thread that runs the task: {stack}")
        shown = host.svc("jobs", "show", name).stdout
        assert all(f"  {line}\n" in shown for line in stack.splitlines())

    def test_an_argument_over_the_limit_is_refused_by_name_of_the_limit(self, host):
        line = json.dumps({"task": "multiply", "args": ["x" * (17 << 20), 1]})
        ended = host.svc("submit", "--from", "-", stdin=line)
        assert ended.returncode == 2
        assert "16777216 bytes" in ended.stderr


def is_ready(host: Host, address: str) -> bool:
    return host.svc("health", SVC_HTTP=address).returncode == 0


class TestWatching:
    def test_status_queues_and_workers_tell_of_the_same_service(self, host):
        # A consumer that was killed has a successor in a moment.
        until(lambda: json.loads(host.svc("status", "--json").stdout)["consumers"] == 2, "consumers")
        status = json.loads(host.svc("status", "--json").stdout)
        (worker,) = json.loads(host.svc("workers", "--json").stdout)
        queues = json.loads(host.svc("queues", "--json").stdout)
        assert status["workers"] == 1
        assert status["consumers"] == worker["consumers"] == 2
        assert [queue["name"] for queue in queues] == [queue["name"] for queue in status["queues"]]
        assert "multiply" in worker["tasks"]

    def test_health_of_manager_and_worker(self, host):
        for name in ("MANAGER_HTTP", "WORKER_HTTP"):
            address = host.env[name]
            until(partial(is_ready, host, address), "ready")
        assert host.svc("health", "--http", "127.0.0.1:1").returncode == 3

    def test_metrics_count_the_jobs(self, host):
        host.svc("submit", "multiply", "1", "1", "--wait")
        assert 'svc_jobs_submitted_total{queue="default",task="multiply"}' in host.svc("metrics").stdout

    def test_metrics_can_be_served(self, host):
        pipes = {"stderr": subprocess.PIPE}
        with running(
            *SVC, "metrics", "--http", "127.0.0.1:0", cwd=host.folder, env=host.env, **pipes
        ) as process:
            address = re.search(r"http://127\.0\.0\.1:(\d+)/metrics", process.stderr.readline())
            assert address is not None
            with socket.create_connection(("127.0.0.1", int(address[1])), DEADLINE) as connection:
                connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
                answer = b"".join(iter(lambda: connection.recv(65536), b""))
            assert b"200 OK" in answer
            assert b"svc_jobs_submitted_total" in answer

    def test_follow_prints_results_until_ctrl_c_which_gives_130(self, host):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with running(*SVC, "results", "--follow", cwd=host.folder, env=host.env, **pipes) as process:
            name = host.svc("submit", "multiply", "9", "9").stdout.strip()
            while process.stdout.readline() != f"{name}\t81\n":
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            assert process.wait(DEADLINE) == 130
            assert "Traceback" not in process.stderr.read()

    def test_a_reader_that_has_enough_ends_it_quietly(self, host):
        for _ in range(2):
            host.svc("submit", "multiply", "1", "1", "--wait")
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with running(*SVC, "results", "--follow", cwd=host.folder, env=host.env, **pipes) as process:
            process.stdout.readline()
            process.stdout.close()
            host.svc("submit", "multiply", "2", "2", "--wait")
            assert process.wait(DEADLINE) == 1
            assert "Traceback" not in process.stderr.read()
            process.stdout = None


class TestRefusals:
    def test_a_wrong_key_gives_4(self, host, tmp_path):
        key = tmp_path / "other"
        host.svc("auth", "generate", "--output", str(key))
        ended = host.svc("status", SVC_AUTHKEY_FILE=key)
        assert (ended.returncode, ended.stdout, len(ended.stderr.splitlines())) == (4, "", 1)
        assert key.read_text().strip() not in ended.stderr

    def test_an_unreachable_manager_gives_3_within_the_timeout(self, host):
        started = time.monotonic()
        ended = host.svc("status", "--timeout", "1", SVC_MANAGER="127.0.0.1:1", SVC_TIMEOUT=50)
        assert (ended.returncode, ended.stdout, len(ended.stderr.splitlines())) == (3, "", 1)
        assert time.monotonic() - started < 40  # the interpreter's own start on a busy machine included

    def test_one_that_accepts_and_says_nothing_gives_3_too(self, host):
        with socket.create_server(("127.0.0.1", 0)) as silent:
            address = f"127.0.0.1:{silent.getsockname()[1]}"
            assert host.svc("status", "--timeout", "0.5", SVC_MANAGER=address).returncode == 3

    def test_a_port_in_use_gives_6_in_one_line(self, host, alone):
        for flags in (
            ["--listen", host.env["SVC_MANAGER"]],
            ["--listen", "127.0.0.1:0", "--http", host.env["MANAGER_HTTP"]],
        ):
            ended = alone.svc("manager", *flags)
            assert ended.returncode in (2, 6)
            assert ended.stderr.splitlines()[-1].startswith("svc: ")
            assert "Traceback" not in ended.stderr

    def test_a_second_manager_on_the_same_journal_is_refused(self, host):
        ended = host.svc("manager", "--listen", "127.0.0.1:0", "--http", "off")
        assert ended.returncode == 6
        assert "Traceback" not in ended.stderr

    def test_a_task_module_that_does_not_exist_is_named(self, host):
        ended = host.svc("worker", "--tasks", "no_such_module", "--http", "off")
        assert ended.returncode == 2
        assert "no_such_module" in ended.stderr
        assert "Traceback" not in ended.stderr


class TestEnds:
    def test_a_wait_outlives_a_manager_that_is_killed_and_comes_back(self, alone):
        manager = alone.start_manager()
        name = alone.svc("submit", "multiply", "6", "7").stdout.strip()
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with running(
            *SVC, "results", name, "--timeout", "50", cwd=alone.folder, env=alone.env, **pipes
        ) as waiting:
            manager.kill()
            manager.wait()
            manager = alone.start_manager(alone.env["SVC_MANAGER"])
            worker = alone.start_worker()
            try:
                printed, said = waiting.communicate(timeout=DEADLINE)
                assert printed == f"{name}\t42\n"
                assert errors(said) == []
                assert waiting.returncode == 0
            finally:
                end(worker, manager)

    def test_a_drain_ends_every_worker_with_0_and_holds_until_resumed(self, alone):
        manager = alone.start_manager()
        worker = alone.start_worker()
        try:
            until(lambda: json.loads(alone.svc("status", "--json").stdout)["consumers"] == 2, "consumers")
            busy = alone.svc("submit", "sleep", "0.5").stdout.strip()
            drained = alone.svc("drain", "--timeout", "30", "--json")
            assert drained.returncode == 0, drained.stderr
            assert json.loads(drained.stdout)["drained"] is True
            assert worker.wait(DEADLINE) == 0
            assert json.loads(alone.svc("jobs", "show", busy, "--json").stdout)["state"] in (
                "ready",
                "succeeded",
            )
            late = alone.svc("submit", "multiply", "2", "3").stdout.strip()
            assert "draining" in alone.svc("jobs", "show", late).stdout
            assert alone.svc("resume").stdout == "resumed\n"
            worker = alone.start_worker()
            assert alone.svc("results", late).stdout == f"{late}\t6\n"
        finally:
            end(worker, manager)

    def test_sigterm_ends_manager_and_worker_with_0(self, alone):
        manager = alone.start_manager()
        worker = alone.start_worker()
        end(worker)
        end(manager)
        assert (worker.returncode, manager.returncode) == (0, 0)
