import json
import os
import threading

import pytest

from svc.cli.output import Printer
from svc.cli.results import print_outcomes
from svc.codec import encode_reference
from svc.domain.job import Outcome
from svc.domain.lifecycle import JobState
from svc.large import Kind, LargeReference
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
    from svc.client.client import BrokerClient

    client = BrokerClient(lambda: consumer.supervisor, pickle_keys=PICKLE_KEYS)
    job = client.options(codec="pickle").submit("t:f", 1)
    consumer.succeed(lambda value: {value, object})
    ended = svc("results", job.id, "--ndjson")
    assert ended.code == 0
    document = json.loads(ended.out)
    assert document["value"] is None
    assert "pickled object" in document["unreadable"]


def test_a_result_that_is_a_file_is_shown_as_one_with_the_way_to_get_it(capsys):
    result = encode_reference(LargeReference(0, 100, bytes(32), Kind.FILE, "report.bin"))
    with Printer(json=False, ndjson=False) as out:
        print_outcomes([Outcome("o-1", JobState.SUCCEEDED, result)], out, named=True)
    told = capsys.readouterr()
    assert told.out == "o-1\t<file 'report.bin' of 100 bytes>\n"
    assert "`svc results ID --output FILE`" in told.err


class TestFrom:
    """`svc results --from`: as many ids as one likes."""

    @pytest.fixture
    def ended(self, svc, consumer, tmp_path):
        """A file with the ids of jobs that have succeeded."""
        ids = [svc("submit", "t:f", str(number)).out.strip() for number in range(3)]
        for _ in ids:
            consumer.succeed(lambda value: value)
        (tmp_path / "ids").write_text("\n".join(ids) + "\n")
        return ids

    def test_the_results_of_the_ids_in_a_file_are_printed(self, svc, ended):
        found = svc("results", "--from", "ids")
        assert (found.code, found.lines) == (0, [f"{name}\t{at}" for at, name in enumerate(ended)])

    def test_a_dash_is_stdin(self, svc, ended, monkeypatch, tmp_path):
        with (tmp_path / "ids").open() as file:
            kept = os.dup(0)
            os.dup2(file.fileno(), 0)
            try:
                assert len(svc("results", "--from", "-").lines) == len(ended)
            finally:
                os.dup2(kept, 0)
                os.close(kept)

    def test_what_results_itself_has_printed_is_read_again(self, svc, ended, tmp_path):
        printed = svc("results", "--from", "ids").out
        (tmp_path / "again").write_text(f"\n{printed}\n\n{printed}")
        assert svc("results", "--from", "again").out == printed

    def test_tens_of_thousands_of_ids_are_taken(self, svc, consumer, tmp_path):
        count = 30_000
        jobs = "".join('{"task": "t:f", "args": [1]}\n' for _ in range(count))
        (tmp_path / "jobs").write_text(jobs)
        ids = svc("submit", "--from", "jobs").out
        while any(each.ready for each in consumer.broker.stats().queues):
            consumer.succeed(lambda value: value, limit=1000)
        (tmp_path / "ids").write_text(ids)
        assert len(svc("results", "--from", "ids").lines) == count

    def test_a_file_without_ids_gives_no_results_and_not_all_of_them(self, svc, ended, tmp_path):
        (tmp_path / "none").write_text("\n \n")
        assert svc("results", "--from", "none") == type(svc("results"))(0, "", "")

    @pytest.mark.parametrize(
        ("content", "said"),
        [
            ("nonsense\n", "bad, line 1: 'nonsense' is not a job id"),
            ("\n\nk3v9x0m2q7w1z-01", "bad, line 3: 'k3v9x0m2q7w1z-01' is not a job id"),
            ("k3v9x0m2q7w1z-x 1\n", "bad, line 1: 'k3v9x0m2q7w1z-x' is not a job id"),
        ],
    )
    def test_a_line_that_is_no_id_is_named(self, svc, tmp_path, content, said):
        (tmp_path / "bad").write_text(content)
        ended = svc("results", "--from", "bad")
        assert (ended.code, ended.out) == (5, "")
        assert said in ended.err

    @pytest.mark.parametrize("argv", [["k3v9x0m2q7w1z-0"], ["--follow"]])
    def test_it_goes_with_no_other_choice_of_jobs(self, svc, ended, argv):
        assert svc("results", "--from", "ids", *argv).code == 2


@pytest.mark.parametrize("verb", ["results", "submit"])
@pytest.mark.parametrize(
    ("source", "said"),
    [
        (".", ". is a directory; name a file"),
        ("folder", "folder is a directory; name a file"),
        ("link", "link is a directory; name a file"),
        ("missing", "missing cannot be read: No such file or directory"),
        ("file/below", "file/below cannot be read: Not a directory"),
    ],
)
def test_a_source_that_cannot_be_read_is_named(svc, tmp_path, verb, source, said):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "file").touch()
    ended = svc(verb, "--from", source)
    assert (ended.code, ended.out, ended.err) == (2, "", f"svc: {said}\n")


@pytest.mark.parametrize("verb", ["results", "submit"])
def test_a_closed_stdin_is_named(svc, verb):
    kept = os.dup(0)
    os.close(0)
    try:
        ended = svc(verb, "--from", "-")
    finally:
        os.dup2(kept, 0)
        os.close(kept)
    assert (ended.code, ended.err) == (2, "svc: stdin cannot be read: Bad file descriptor\n")


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_json_list_is_one_document_however_many_items_it_has(svc, consumer, count):
    names = [svc("submit", "t:f", json.dumps({"a": [number, "x\ny"]})).out.strip() for number in range(count)]
    for _ in names:
        consumer.succeed()
    ended = svc("results", "--json")
    assert [each["id"] for each in ended.json] == names
    assert ended.out == json.dumps(ended.json, indent=2) + "\n"


def test_the_results_that_are_kept_are_a_list_and_no_wait_so_the_exit_code_is_0(svc, consumer):
    svc("submit", "t:f")
    consumer.fail()
    ended = svc("results")
    assert (ended.code, "failed" in ended.err) == (0, True)
    assert "ends with 0 whatever became of the jobs" in " ".join(svc("results", "--help").out.split())
