"""`svc jobs show`: arguments, results and attempts of a job."""

from __future__ import annotations

import json
import re
from datetime import timedelta

import pytest

from svc.broker.local import LocalBroker
from svc.domain import commands as c
from svc.domain import suspicion
from svc.domain.job import Cause, ErrorInfo, OutputPiece, OutputStream
from svc.domain.limits import Limits
from svc.wire import PROTOCOL_VERSION
from tests.support.asking import record
from tests.support.document_names import ATTEMPT


@pytest.fixture
def submitted(svc):
    return lambda *args: svc("submit", "t:f", *args).out.strip()


def test_show_tells_arguments_result_times_and_who_ran_it(svc, consumer):
    name = svc("submit", "t:f", "1", "two", "--kwargs", '{"size": [3]}').out.strip()
    consumer.succeed(lambda *args, **kwargs: {"area": 1.5})

    out = svc("jobs", "show", name).out
    assert "arguments      1, 'two', size=[3]\n" in out
    assert "result         {'area': 1.5}\n" in out
    assert "duration       500 ms\n" in out
    assert "consumer       w1/1\n" in out
    assert "worker         w1\n" in out
    assert "attempt 1: succeeded after 500 ms by w1/1, 2" in out

    job = svc("jobs", "show", name, "--json").json
    content = job["content"]
    assert (content["args"], content["kwargs"]) == ([1, "two"], {"size": [3]})
    assert content["result"] == {"area": 1.5}
    assert (job["consumer"], job["worker"], job["seconds"]) == ("w1/1", "w1", 0.5)
    assert job["started_at"] < job["finished_at"]


def test_show_tells_the_whole_history_of_a_job_that_succeeded_at_last(svc, submitted, consumer):
    name = submitted("1")
    consumer.fail("first", retry_in=0.0)
    consumer.succeed()
    out = svc("jobs", "show", name).out
    first, second = "attempt 1: failed after 250 ms by w1/1", "attempt 2: succeeded after 500 ms by w1/1"
    assert out.index(first) < out.index(second)


def test_show_tells_since_when_a_job_runs(svc, submitted, consumer):
    name = submitted("1")
    consumer.broker.lease(limit=1, wait=timedelta(seconds=5))
    out = svc("jobs", "show", name).out
    assert "attempt 1: runs by w1/1 since 2" in out
    assert "worker         w1\n" in out
    job = svc("jobs", "show", name, "--json").json
    assert job["started_at"] >= job["submitted_at"]
    assert (job["consumer"], job["seconds"]) == ("w1/1", None)


@pytest.mark.parametrize("delay", ["8s", "60s", "1h"])
def test_show_tells_in_how_long_a_job_is_due(svc, submitted, delay):
    out = svc("jobs", "show", submitted("1", "--delay", delay)).out
    assert re.search(r"^due +2\S+Z \(in [0-9][^)]*\)$", out, re.MULTILINE), out


@pytest.mark.parametrize("message", ["", "no quota left"])
def test_a_job_that_was_put_off_is_not_told_as_failed(svc, submitted, consumer, message):
    name = submitted("1")
    (delivery,) = consumer.broker.lease(limit=1, wait=timedelta(seconds=5)).grant.deliveries
    error = ErrorInfo("Snooze", message)
    snooze = c.Nack(delivery.token, 0, error, 60.0, Cause.INTERRUPTED, 0.5, snoozed=True)
    record(consumer.broker, snooze)
    told = svc("jobs", "show", name, "--json").json["reason"]
    assert re.fullmatch(r"was put off by its task until \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", told)
    note = f"{told}; {message}" if message else told
    assert svc("jobs", "list").lines[1].endswith(f" {note}")
    out = svc("jobs", "show", name).out
    assert f"state          scheduled ({told})" in out
    assert re.search(r"^attempt 1: snoozed after 500 ms by w1/1, ", out, re.MULTILINE)
    assert "Snooze" not in out
    assert "failed" not in out
    ended = svc("wait", name, "--wait-timeout", "0")
    assert told + (f" ({message})" if message else "") in ended.err


def test_the_time_of_an_attempt_whose_worker_was_lost_is_told_only_if_it_is_known(
    svc, submitted, consumer, queue
):
    name = submitted("1")
    consumer.broker.lease(limit=1, wait=timedelta(seconds=5))
    state = queue.host.state
    (lease,) = state.leases.values()
    lease.since = state.workers["w1"].seen_at
    suspicion.worker_lost(state, lease.holder, queue.host.clock.now())
    assert re.search(r"^attempt 1: interrupted by w1/1, ", svc("jobs", "show", name).out, re.MULTILINE)


def test_show_tells_when_and_by_whom_a_job_was_run_that_is_cancelled(svc, submitted, consumer):
    name = submitted("1")
    consumer.broker.lease(limit=1, wait=timedelta(seconds=5))
    svc("jobs", "cancel", name)
    out = svc("jobs", "show", name).out
    assert re.search(r"^attempt 1: cancelled after \d+ ms by w1/1, 2", out, re.MULTILINE), out
    job = svc("jobs", "show", name, "--json").json
    (attempt,) = job["attempts"]
    assert set(attempt) == ATTEMPT
    assert (attempt["cause"], attempt["consumer"], job["consumer"]) == ("cancelled", "w1/1", "w1/1")
    assert job["submitted_at"] <= job["started_at"] <= job["finished_at"] == attempt["at"]


def test_redacted_jobs_show_no_values(svc, submitted, consumer):
    name = submitted('"secret"')
    consumer.succeed(lambda value: value)
    out = svc("jobs", "show", name, "--redact").out
    assert "secret" not in out
    assert "arguments" not in out
    assert svc("jobs", "show", name, "--redact", "--json").json["content"] is None


def test_redacted_jobs_show_no_texts_of_errors_and_of_progress(svc, submitted, consumer):
    name = submitted("1")
    consumer.fail("secret", retry_in=0.0)
    (delivery,) = consumer.broker.lease(limit=1, wait=timedelta(seconds=5)).grant.deliveries
    report = c.JobProgress(delivery.token, delivery.first, 1.0, 2.0, "secret")
    consumer.broker.call([c.TellProgress([report])])
    assert svc("jobs", "show", name).out.count("secret") == 2
    out = svc("jobs", "show", name, "--redact").out
    assert "secret" not in out
    assert "Traceback" not in out
    assert "ValueError: (hidden)" in out
    assert "1 of 2 (50%)" in out
    assert "secret" not in svc("jobs", "show", name, "--redact", "--json").out


@pytest.mark.parametrize("queue", [Limits(redact=True)], indirect=True)
def test_a_manager_may_hide_the_texts_of_errors_from_all(svc, submitted, consumer):
    name = submitted("1")
    consumer.fail("secret")
    for argv in (("show", name), ("show", name, "--json"), ("list",), ("list", "--json")):
        assert "secret" not in svc("jobs", *argv).out


def test_show_tells_the_code_and_the_peak_of_each_attempt(svc, queue, submitted):
    hello = c.Hello(PROTOCOL_VERSION, "consumer", "w-1", "w", tasks=["t:f"], code="0123456789ab")
    broker = LocalBroker(queue, lambda: hello)
    failed, ended = submitted("1"), submitted("2")
    (delivery,) = broker.lease(limit=1, wait=timedelta(seconds=5)).grant.deliveries
    error = ErrorInfo("ValueError", "no")
    broker.call([c.Nack(delivery.token, delivery.first, error, seconds=0.25, peak=3 << 20)])
    (delivery,) = broker.lease(limit=1, wait=timedelta(seconds=5)).grant.deliveries
    assert "code           0123456789ab\n" in svc("jobs", "show", ended).out, "while it runs"
    broker.call([c.Ack(delivery.token, delivery.first, [b"1"], [0.5], peaks=[5 << 20])])

    out = svc("jobs", "show", failed).out
    assert "peak rss 3.0 MiB, code 0123456789ab\n" in out
    (attempt,) = svc("jobs", "show", failed, "--json").json["attempts"]
    assert (attempt["code"], attempt["peak_rss"]) == ("0123456789ab", 3 << 20)
    out = svc("jobs", "show", ended).out
    assert "code           0123456789ab\n" in out
    assert "peak rss       5.0 MiB\n" in out
    job = svc("jobs", "show", ended, "--json").json
    assert (job["code"], job["peak_rss"]) == ("0123456789ab", 5 << 20)
    broker.close()


@pytest.mark.parametrize("queue", [Limits(redact=True)], indirect=True)
def test_a_manager_may_hide_values_from_all(svc, submitted, consumer):
    name = submitted('"secret"')
    consumer.succeed(lambda value: value)
    out = svc("jobs", "show", name).out
    assert "secret" not in out
    assert "(hidden by the manager)" in out
    content = svc("jobs", "show", name, "--json").json["content"]
    assert (content["hidden"], content["args"], content["result"]) == (True, None, None)
    assert (content["arguments_bytes"], content["result_bytes"]) == (0, 0)


def test_long_values_are_shortened_and_larger_ones_have_their_size(svc, submitted, consumer):
    long, large = submitted(json.dumps("x" * 1000)), submitted(json.dumps("y" * 100_000))
    for _ in range(2):
        consumer.succeed(lambda value: value)
    assert "x… (1002 characters)" in svc("jobs", "show", long).out
    shown = svc("jobs", "show", large).out
    assert "(97.7 KiB, not shown)" in shown
    assert "(97.7 KiB: `svc results ID --output FILE` has all)" in shown
    assert "yyy" not in shown
    content = svc("jobs", "show", long, "--json").json["content"]
    assert (content["args"], content["result"]) == (["x" * 1000], "x" * 1000)


def test_values_reach_no_terminal_as_control_characters(svc, submitted, consumer):
    name = submitted(json.dumps("\x1b]0;owned\x07"))
    consumer.succeed(lambda value: value)
    assert "\x1b" not in svc("jobs", "show", name).out


def test_show_ends_with_the_last_lines_of_output(svc, submitted, consumer):
    name = submitted("1")
    consumer.succeed()
    text = b"".join(b"line %d\n" % number for number in range(30)) + b"\x1b[31mred \xff\n"
    pieces = [OutputPiece(name, 1, OutputStream.STDOUT, 0, text)]
    consumer.supervisor.call([c.Output(pieces, 64 * 1024)])

    out = svc("jobs", "show", name).out
    assert out.endswith("line 29\n  \\x1b[31mred \\xff\n")
    assert out.partition("last lines of output\n")[2].count("\n") == 10
    assert "line" not in svc("jobs", "show", name, "--redact").out
    assert svc("jobs", "show", name, "--json").json["last_lines"][-2:] == ["line 29", "\x1b[31mred \\xff"]
    assert svc("jobs", "show", name, "--json", "--redact").json["last_lines"] == []
