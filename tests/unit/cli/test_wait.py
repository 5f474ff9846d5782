"""`svc wait`: the end of jobs, the counts, and what a wait costs the manager."""

from __future__ import annotations

import json
import threading
from collections import Counter
from datetime import timedelta

import pytest

from svc.broker.local import LocalBroker
from svc.codec import encode_arguments
from svc.domain import commands as c
from svc.domain.job import NewChunk, Terms
from svc.wire import PROTOCOL_VERSION


@pytest.fixture
def submitted(svc):
    return lambda *args: svc("submit", "t:f", *args).out.strip()


def test_it_ends_with_the_counts_and_prints_no_results(svc, submitted, consumer):
    names = [submitted("1"), submitted("2")]
    for _ in names:
        consumer.succeed()
    ended = svc("wait", *names)
    assert (ended.code, ended.out) == (0, "")
    assert ended.err.startswith("svc: 2 jobs: 2 done, 0 failed, in ")


def test_jobs_that_did_not_succeed_are_named_with_exit_code_8(svc, submitted, consumer):
    good, bad, cancelled = (submitted(str(number)) for number in range(3))
    consumer.succeed()
    consumer.fail("kaput")
    svc("jobs", "cancel", cancelled)
    ended = svc("wait", good, bad, cancelled)
    assert ended.code == 8
    assert f"svc: job {bad} failed: ValueError: kaput - `svc jobs show {bad}` tells more\n" in ended.err
    assert ended.err.splitlines()[-1].startswith("svc: 3 jobs: 1 done, 2 failed, in ")
    found = svc("wait", good, bad, cancelled, "--json")
    assert found.code == 8
    assert found.err == ""
    assert found.json.pop("seconds") >= 0
    assert {name: value for name, value in found.json.items() if name != "seconds"} == {
        "jobs": 3, "succeeded": 1, "dead": 1, "cancelled": 1, "not_succeeded": [bad, cancelled],
    }  # fmt: skip


def test_of_many_failures_ten_are_named_and_the_others_counted(svc, consumer, tmp_path):
    (tmp_path / "jobs").write_text('{"task": "t:f", "retries": 0}\n' * 12)
    (tmp_path / "ids").write_text(svc("submit", "--from", "jobs").out)
    for _ in range(12):
        consumer.fail()
    lines = svc("wait", "--from", "ids").err.splitlines()
    assert sum("tells more" in line for line in lines) == 10
    assert lines[-2] == "svc: 2 more did not succeed; --json has the ids of all"


def test_quiet_says_nothing_but_what_failed(svc, submitted, consumer):
    name = submitted("1")
    consumer.succeed()
    assert svc("wait", name, "--quiet") == type(svc("wait", name, "--quiet"))(0, "", "")
    assert svc("results", submitted("2"), "--quiet", "--wait-timeout", "0.3").err.count("\n") == 1


@pytest.mark.parametrize("argv", [[], ["k3v9x0m2q7w1z-0", "--from", "ids"]])
def test_it_wants_ids_or_a_file(svc, argv):
    ended = svc("wait", *argv)
    assert (ended.code, "name either the ids of jobs" in ended.err) == (2, True)


def test_a_wait_that_is_too_short_says_how_to_go_on(svc, submitted):
    name = submitted("1")
    ended = svc("wait", name, "--wait-timeout", "0")
    assert ended.code == 124
    assert name in ended.err


def test_ctrl_c_ends_the_wait_and_names_the_command(svc, submitted, monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    name, other = submitted("1"), submitted("2")
    monkeypatch.setattr("svc.client.client.BrokerClient.follow", interrupt)
    ended = svc("wait", name, other)
    assert ended.code == 130
    assert ended.err.endswith(f"go on: {name} {other} - `svc wait {name}` waits again\n")
    assert {job["state"] for job in svc("jobs", "list", "--json").json} == {"ready"}


def test_a_ctrl_c_while_a_result_is_printed_names_the_jobs_as_well(svc, submitted, consumer, monkeypatch):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    done, name = submitted("1"), submitted("2")
    consumer.succeed()
    monkeypatch.setattr("svc.cli.output.Printer.item", interrupt)
    ended = svc("results", done, name)
    assert ended.code == 130
    assert f"goes on: {name} " in ended.err


def test_a_wait_without_a_terminal_tells_a_line_now_and_then_and_a_last_one(svc, submitted, monkeypatch):
    monkeypatch.setattr("svc.cli.wait_view.PLAIN_SECONDS", 0.05)
    names = [submitted("1"), submitted("2")]
    ended = svc("results", *names, "--wait-timeout", "0.4")
    told = [line for line in ended.err.splitlines() if "done" in line]
    assert told[0] == "svc: 0 of 2 done, 0 failed"
    assert told[-1].startswith("svc: 2 jobs: 0 done, 0 failed, in ")
    assert "\x1b" not in ended.err
    assert "\r" not in ended.err


def test_a_wait_that_told_lines_meanwhile_tells_the_last_one_once(svc, submitted, consumer, monkeypatch):
    names = [submitted("1"), submitted("2")]
    told: list[str] = []

    def tell(text: str) -> None:
        told.append(text)
        if len(told) == 1:  # a line of the wait, which has not ended
            consumer.succeed(limit=2)

    monkeypatch.setattr("svc.cli.wait_view.PLAIN_SECONDS", 0.05)
    monkeypatch.setattr("svc.cli.wait_view.tell", tell)
    assert svc("wait", *names).code == 0
    assert told[0] == "svc: 0 of 2 done, 0 failed"
    assert sum(line.startswith("svc: 2 jobs: 2 done, 0 failed, in ") for line in told) == 1, told


@pytest.mark.parametrize("flag", ["--quiet", "--json", "--ndjson"])
def test_no_line_is_told_if_a_program_reads_or_nobody_wants_it(svc, submitted, monkeypatch, flag):
    monkeypatch.setattr("svc.cli.wait_view.PLAIN_SECONDS", 0.01)
    ended = svc("results", submitted("1"), submitted("2"), flag, "--wait-timeout", "0.2")
    assert "done" not in ended.err
    if flag != "--quiet":
        assert all(json.loads(line) for line in ended.err.splitlines())


def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the commands from now on, by kind."""
    calls = Counter[str]()
    call = LocalBroker.call

    def counting(self, commands, *, wait=0.0):
        calls.update(type(each).__name__ for each in commands)
        return call(self, commands, wait=wait)

    monkeypatch.setattr(LocalBroker, "call", counting)
    return calls


def test_jobs_that_end_one_by_one_do_not_take_a_request_each(svc, consumer, monkeypatch, tmp_path):
    (tmp_path / "jobs").write_text('{"task": "t:f"}\n' * 700)
    (tmp_path / "ids").write_text(svc("submit", "--from", "jobs").out)
    calls = counted(monkeypatch)
    work = threading.Thread(target=lambda: [consumer.succeed() for _ in range(700)])
    work.start()
    ended = svc("wait", "--from", "ids")
    work.join()
    assert ended.code == 0
    assert calls["Feed"] < 350, calls


@pytest.mark.parametrize("origins", [1, 2])
def test_a_wait_for_150_000_jobs_takes_a_request_for_each_1000(svc, queue, monkeypatch, tmp_path, origins):
    jobs = 150_000 // origins
    broker = LocalBroker(queue, lambda: c.Hello(PROTOCOL_VERSION, "consumer", "w/1", "w", "host", 1, ["t:f"]))
    body = encode_arguments("plain", (), {})
    names = []
    for origin in ("left", "right")[:origins]:
        for first in range(0, jobs, 5000):
            assert not broker.submit(origin, [NewChunk(first, Terms("t:f"), [body] * 5000)])
        names += [f"{origin}-{number}" for number in range(jobs)]
    while deliveries := broker.lease(limit=256, wait=timedelta(0)).grant.deliveries:
        for each in deliveries:
            count = len(each.bodies)
            broker.call([c.Ack(each.token, each.first, [b"\xc0"] * count, [0.0] * count)])
    (tmp_path / "ids").write_text("\n".join(names))
    calls = counted(monkeypatch)
    ended = svc("wait", "--from", "ids")
    assert ended.code == 0
    assert ended.err.splitlines()[-1].startswith("svc: 150,000 jobs: 150,000 done, 0 failed, in ")
    assert calls.total() < 200, calls
