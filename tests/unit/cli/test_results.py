import json
import threading

import pytest

from tests.support.pickle_keys import PICKLE_KEYS

OUTCOME = {"id", "task", "state", "value", "error", "seconds", "finished_at"}


@pytest.fixture
def submitted(svc):
    return lambda *args: svc("submit", "t:f", *args).out.strip()


def test_values_come_with_their_ids(svc, submitted, consumer):
    one, two = submitted("1"), submitted('"a b"')
    consumer.succeed(lambda value: value)
    consumer.succeed(lambda value: value)
    ended = svc("results", one, two)
    assert (ended.code, sorted(ended.lines)) == (0, sorted([f"{one}\t1", f"{two}\ta b"]))


def test_without_ids_all_that_is_kept_is_printed(svc, submitted, consumer):
    names = [submitted(str(number)) for number in range(3)]
    for _ in names:
        consumer.succeed(lambda value: value)
    submitted("9")  # still waiting: not among the results
    assert svc("results").lines == [f"{name}\t{number}" for number, name in enumerate(names)]


def test_no_results_is_no_error(svc):
    assert svc("results") == type(svc("results"))(0, "", "")
    assert svc("results", "--json").json == []


def test_ndjson_has_one_object_a_line_with_these_names(svc, submitted, consumer):
    submitted("1")
    submitted("2")
    consumer.succeed(lambda value: {"square": value})
    consumer.fail()
    succeeded, failed = (json.loads(line) for line in svc("results", "--ndjson").lines)
    assert set(succeeded) == set(failed) == OUTCOME
    assert (succeeded["state"], succeeded["value"], succeeded["error"]) == ("succeeded", {"square": 1}, None)
    assert (failed["state"], failed["value"]) == ("dead", None)
    assert set(failed["error"]) == {"type", "message", "traceback"}
    assert succeeded["finished_at"].endswith("Z")


def test_json_is_one_document(svc, submitted, consumer):
    submitted("1")
    consumer.succeed(lambda value: value)
    assert [outcome["value"] for outcome in svc("results", "--json").json] == [1]


def test_a_job_that_failed_gives_exit_code_8_and_a_line_on_stderr(svc, submitted, consumer):
    good, bad = submitted("1"), submitted("2")
    consumer.succeed(lambda value: value)
    consumer.fail("kaput")
    ended = svc("results", good, bad)
    assert (ended.code, ended.lines) == (8, [f"{good}\t1"])
    assert ended.err == f"svc: job {bad} failed: ValueError: kaput - `svc jobs show {bad}` tells more\n"


def test_a_cancelled_job_counts_as_not_succeeded(svc, submitted):
    name = submitted("1")
    svc("jobs", "cancel", name)
    ended = svc("results", name)
    assert (ended.code, ended.out) == (8, "")
    assert "was cancelled" in ended.err


def test_an_unknown_job_gives_exit_code_5_at_once(svc):
    for name in ("k3v9x0m2q7w1z-0", "rubbish"):
        ended = svc("results", name, "--json")
        assert ended.code == 5
        assert ended.error["code"] == "unknown_job"


def test_results_that_do_not_come_in_time_give_124_and_the_others_are_printed(svc, submitted, consumer):
    one, two = submitted("1"), submitted("2")
    consumer.succeed(lambda value: value)
    ended = svc("results", one, two, "--wait-timeout", "0.1")
    assert (ended.code, ended.lines) == (124, [f"{one}\t1"])
    assert "1 job has not ended within 0.1 s" in ended.err


def test_it_waits_for_the_jobs_it_was_given(svc, submitted, consumer):
    names = [submitted(str(number)) for number in range(3)]

    def work():
        for _ in names:
            consumer.succeed(lambda value: value)

    thread = threading.Thread(target=work)
    thread.start()
    ended = svc("results", *names)
    thread.join()
    assert sorted(ended.lines) == sorted(f"{name}\t{number}" for number, name in enumerate(names))


def test_follow_prints_what_is_kept_and_what_comes(svc, submitted, consumer):
    first, second = submitted("1"), submitted("2")
    consumer.succeed(lambda value: value)
    thread = threading.Timer(0.05, consumer.succeed, [lambda value: value])
    thread.start()
    ended = svc("results", "--follow", "--wait-timeout", "0.5")
    thread.join()
    assert (ended.code, ended.lines) == (124, [f"{first}\t1", f"{second}\t2"])


def test_a_pickled_result_is_not_opened(svc, queue, consumer):
    from service.client.client import Client

    client = Client(lambda: consumer.supervisor, pickle_keys=PICKLE_KEYS)
    job = client.options(codec="pickle").submit("t:f", 1)
    consumer.succeed(lambda value: {value, object})
    ended = svc("results", job.id, "--ndjson")
    assert ended.code == 0
    document = json.loads(ended.out)
    assert document["value"] is None
    assert "pickled object" in document["unreadable"]
