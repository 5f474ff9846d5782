"""`svc results ID --stream`: partial results on the command line."""

import json
import threading
from datetime import timedelta

import pytest

from svc.codec import encode_result
from svc.domain import commands as c
from svc.domain.job import ErrorInfo
from tests.support.asking import record
from tests.support.pickle_keys import PICKLE_KEYS


class Attempt:
    """An attempt at the only job, which gives values by hand."""

    def __init__(self, broker):
        self._broker = broker
        (self._delivery,) = broker.lease(limit=1, wait=timedelta(seconds=5)).grant.deliveries
        self._count = 0

    def give(self, *values, codec="plain", keys=None):
        encoded = [encode_result(codec, value, keys) for value in values]
        token, number = self._delivery.token, self._delivery.first
        self._count = record(self._broker, c.Yield(token, number, self._count, encoded))

    def succeed(self):
        result = encode_result("plain", None)
        record(self._broker, c.Ack(self._delivery.token, self._delivery.first, [result], [0.5]))

    def fail(self, retry_in=None):
        error = ErrorInfo("ValueError", "no")
        record(self._broker, c.Nack(self._delivery.token, self._delivery.first, error, retry_in))


@pytest.fixture
def job(svc):
    return svc("submit", "t:f").out.strip()


def test_partial_results_come_with_their_indexes(svc, job, consumer):
    attempt = Attempt(consumer.broker)
    attempt.give(1, "two", [3])
    attempt.succeed()
    ended = svc("results", job, "--stream")
    assert (ended.code, ended.lines) == (0, ["0\t1", "1\ttwo", "2\t[3]"])


def test_the_page_of_a_job_has_their_number_and_size(svc, job, consumer):
    attempt = Attempt(consumer.broker)
    assert "partial results" not in svc("jobs", "show", job).out
    attempt.give("abc", "def")
    (line,) = [line for line in svc("jobs", "show", job).lines if line.startswith("partial results")]
    assert line.split()[2:] == ["2", "(8", "B)"]
    shown = svc("jobs", "show", job, "--json").json
    assert (shown["partial_results"], shown["stream_bytes"], shown["stream_number"]) == (2, 8, 1)


def test_a_stream_may_begin_later(svc, job, consumer):
    attempt = Attempt(consumer.broker)
    attempt.give("a", "b", "c")
    attempt.succeed()
    assert svc("results", job, "--stream", "--start", "2").lines == ["2\tc"]


def test_ndjson_has_one_object_for_each_with_these_names(svc, job, consumer):
    attempt = Attempt(consumer.broker)
    attempt.give({"x": 1})
    attempt.succeed()
    (line,) = svc("results", job, "--stream", "--ndjson").lines
    assert json.loads(line) == {"id": job, "stream": 1, "index": 0, "value": {"x": 1}}


def test_it_waits_until_the_job_has_ended(svc, job, consumer):
    attempt, found = Attempt(consumer.broker), []
    attempt.give(1)
    reader = threading.Thread(target=lambda: found.append(svc("results", job, "--stream")))
    reader.start()
    attempt.give(2)
    attempt.succeed()
    reader.join(30)
    assert found[0].lines == ["0\t1", "1\t2"]


def test_a_job_that_failed_gives_exit_code_8_after_its_partial_results(svc, job, consumer):
    attempt = Attempt(consumer.broker)
    attempt.give(1)
    attempt.fail()
    ended = svc("results", job, "--stream")
    assert (ended.code, ended.lines) == (8, ["0\t1"])
    assert f"ValueError: no - `svc jobs show {job}` tells more" in ended.err


def is_waiting(queue):
    """Return whether a reader waits; the lock of the queue keeps its thread from changing that meanwhile."""
    with queue._changed:
        return any(isinstance(each.command, c.ReadStream) for each in queue.host._waiters.all.values())


def test_another_attempt_ends_it_with_exit_code_8(svc, job, consumer, queue):
    first, found = Attempt(consumer.broker), []
    first.give("old")
    reader = threading.Thread(target=lambda: found.append(svc("results", job, "--stream", "--json")))
    reader.start()
    while not is_waiting(queue):
        assert reader.is_alive()
    first.fail(retry_in=0.0)
    Attempt(consumer.broker).give("new")
    reader.join(30)
    (ended,) = found
    assert ended.code == 8
    assert [item["value"] for item in ended.json] == ["old"]
    assert ended.error["code"] == "stream_restarted"
    assert ended.error["hint"] == f"`svc results {job} --stream` reads them"


def test_a_job_without_partial_results_says_how_to_get_its_result(svc, job, consumer):
    consumer.succeed()
    ended = svc("results", job, "--stream")
    assert (ended.code, ended.out) == (0, "")
    assert ended.err == f"svc: job {job} gave no partial results; `svc results {job}` has its result\n"


def test_a_start_beyond_the_last_partial_result_is_told(svc, job, consumer):
    attempt = Attempt(consumer.broker)
    attempt.give("a")
    attempt.succeed()
    ended = svc("results", job, "--stream", "--start", "5")
    assert (ended.code, ended.err) == (0, f"svc: job {job} gave no partial results from index 5 on\n")


def test_a_pickled_object_is_not_opened_and_the_next_one_is_printed(svc, consumer):
    job = svc("submit", "t:f").out.strip()
    attempt = Attempt(consumer.broker)
    attempt.give(slice(1), codec="pickle", keys=PICKLE_KEYS.of("any"))
    attempt.give(2)
    attempt.succeed()
    ended = svc("results", job, "--stream")
    assert (ended.code, ended.lines) == (0, ["0\tnull", "1\t2"])
    assert f"svc: partial result 0 of job {job}: " in ended.err


def test_time_is_up_with_exit_code_124(svc, job):
    assert svc("results", job, "--stream", "--wait-timeout", "0.1").code == 124


def test_an_unknown_job_gives_exit_code_5(svc):
    assert svc("results", "k3v9x0m2q7w1z-0", "--stream").code == 5
    assert svc("results", "rubbish", "--stream").code == 5


@pytest.mark.parametrize(
    "arguments",
    [["--stream"], ["a-0", "b-0", "--stream"], ["--follow", "--stream"], ["a-0", "--stream", "--output", "-"],
     ["a-0", "--start", "1"], ["a-0", "--stream", "--start", "-1"], ["a-0", "--stream", "--start", "x"]],
)  # fmt: skip
def test_what_does_not_go_together_gives_exit_code_2(svc, arguments):
    assert svc("results", *arguments).code == 2
