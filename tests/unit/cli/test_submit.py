import json
import threading

import pytest

from svc.cli.submit import argument


def submitted(svc, *argv):
    ended = svc("submit", *argv)
    assert ended.code == 0, ended.err
    return svc("jobs", "show", *ended.lines, "--json").json


def test_the_id_is_printed_alone(svc):
    ended = svc("submit", "t:f", "1")
    assert (ended.code, ended.err) == (0, "")
    assert len(ended.lines) == 1
    assert ended.out.strip().endswith("-0")


def test_an_argument_that_looks_like_a_keyword_argument_is_taken_and_the_way_to_write_one_told(svc):
    ended = svc("submit", "t:f", "n=5", "--json")
    assert ended.code == 0
    assert ended.err.startswith(
        "svc: n=5 is one text for the task; its keyword arguments are given as --kwargs"
    )
    assert svc("submit", "t:f", '"n=5"', "=5", "1=2").err == ""


def test_an_unknown_option_that_may_be_a_keyword_argument_is_told_how_to_write_that(svc):
    ended = svc("submit", "t:f", "--n", "5")
    assert ended.code == 2
    assert ended.err.endswith("""a task gets its keyword arguments by --kwargs '{"NAME": VALUE}'\n""")
    assert "--kwargs" not in svc("status", "--n", "5").err


def test_a_size_out_of_bounds_is_told_with_bounds_as_a_user_writes_them(svc):
    assert "it goes from 1MiB to 1048576GiB" in svc("submit", "t:f", "--max-rss", "100").err


@pytest.mark.parametrize("argv", [("submit", "--from", "empty"), ("run", "--each-line", "empty", "--", "ls")])
@pytest.mark.parametrize("content", ["", "\n\n"])
def test_an_input_without_jobs_is_told_and_no_error(svc, tmp_path, argv, content):
    (tmp_path / "empty").write_text(content)
    for words in (argv, (argv[0], "--wait", *argv[1:])):
        ended = svc(*words)
        assert (ended.code, ended.out) == (0, "")
        assert ended.err == "svc: empty has no jobs; there was nothing to submit\n"
    ended = svc(argv[0], "--json", *argv[1:])
    assert (ended.code, ended.json, ended.err) == (0, [], "")


@pytest.mark.parametrize(
    ("text", "value"),
    [("2", 2), ("2.5", 2.5), ("true", True), ("null", None), ('{"a": [1]}', {"a": [1]}), ('"2"', "2"),
     ("moby.txt", "moby.txt"), ("01", "01"), ("", ""), ("[1", "[1")],
)  # fmt: skip
def test_an_argument_is_json_where_it_parses_as_json(text, value):
    assert argument(text) == value


def test_flags_become_the_terms_of_the_job(svc):
    flags = ["--queue", "mail", "--priority", "7", "--key", "k1", "--retries", "2", "--job-timeout", "90s"]
    job = submitted(svc, "t:f", "1", *flags, "--delay", "5m")
    assert (job["queue"], job["priority"], job["key"]) == ("mail", 7, "k1")
    assert (job["retries"], job["timeout"], job["state"]) == (2, 90.0, "scheduled")


def test_arguments_and_keywords_reach_the_consumer(svc, consumer):
    svc("submit", "t:f", "1", "two", "--kwargs", '{"x": 3}')
    seen = []
    consumer.succeed(lambda *args, **kwargs: seen.append((args, kwargs)))
    assert seen == [((1, "two"), {"x": 3})]


def test_dashes_need_a_double_dash_before_them(svc, consumer):
    assert svc("submit", "t:f", "-1").code == 2
    assert svc("submit", "t:f", "--", "-1").code == 0
    consumer.succeed(lambda value: value)


@pytest.mark.parametrize("kwargs", ["[1]", "3", "{", "x"])
def test_keywords_have_to_be_an_object(svc, kwargs):
    ended = svc("submit", "t:f", "--kwargs", kwargs)
    assert ended.code == 2
    assert "--kwargs is not a JSON object" in ended.err


@pytest.mark.parametrize("argv", [[], ["t:f", "--from", "-"], ["--from", "-", "--key", "k"]])
def test_either_a_task_or_a_file(svc, argv):
    assert svc("submit", *argv).code == 2


def test_strict_refuses_a_task_that_no_worker_knows(svc):
    ended = svc("submit", "no:task", "--strict")
    assert ended.code == 5
    assert ended.out == ""
    assert len(ended.err.splitlines()) == 1


def test_the_same_key_is_the_same_job_and_another_body_a_conflict(svc):
    first, again = svc("submit", "t:f", "1", "--key", "k"), svc("submit", "t:f", "1", "--key", "k")
    assert first.out == again.out
    assert svc("submit", "t:f", "2", "--key", "k").code == 6


def test_a_drain_that_refuses_gives_exit_code_9(svc):
    svc("drain", "--refuse", "--no-wait")
    ended = svc("submit", "t:f", "--json")
    assert ended.code == 9
    assert ended.error["code"] == "draining"
    assert ended.error["retryable"] is True


def test_wait_prints_the_value_alone(svc, consumer):
    def work():
        consumer.succeed(lambda a, b: a * b)

    thread = threading.Thread(target=work)
    thread.start()
    ended = svc("submit", "t:f", "6", "7", "--wait")
    thread.join()
    assert (ended.code, ended.out) == (0, "42\n")


def test_wait_in_json_gives_the_whole_outcome(svc, consumer):
    thread = threading.Thread(target=consumer.succeed, args=[lambda: "done"])
    thread.start()
    found = svc("submit", "t:f", "--wait", "--json").json
    thread.join()
    assert (found["state"], found["value"], found["error"]) == ("succeeded", "done", None)


def test_wait_for_a_job_that_fails_gives_exit_code_8(svc, consumer):
    thread = threading.Thread(target=consumer.fail)
    thread.start()
    ended = svc("submit", "t:f", "--wait")
    thread.join()
    assert (ended.code, ended.out) == (8, "")
    assert "ValueError: no such mailbox" in ended.err
    assert "Traceback" not in ended.err


def test_wait_gives_exit_code_124_when_the_time_ran_out(svc):
    ended = svc("submit", "t:f", "--wait", "--wait-timeout", "50ms")
    assert (ended.code, ended.out) == (124, "")
    assert "not ended within 0.05 s" in ended.err


class TestLines:
    @pytest.fixture
    def lines(self, tmp_path):
        def write(*lines):
            path = tmp_path / "jobs.ndjson"
            path.write_text("".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
            return str(path)

        return write

    def test_ids_come_in_input_order(self, svc, lines):
        path = lines(
            *(json.dumps({"task": f"t:{number % 3}", "args": [number]}) + "\n" for number in range(50))
        )
        ended = svc("submit", "--from", path)
        assert ended.code == 0
        tasks = [job["task"] for job in svc("jobs", "show", *ended.lines, "--json").json]
        assert tasks == [f"t:{number % 3}" for number in range(50)]

    def test_a_bad_line_is_told_by_its_number_and_the_good_ones_are_accepted(self, svc, lines):
        path = lines('{"task": "t:f"}\n', "{oops\n", "\n", '{"task": "t:f", "arg": [1]}\n', '{"task": "t:f"}')
        ended = svc("submit", "--from", path)
        assert ended.code == 7
        assert len(ended.lines) == 2
        first, second = ended.err.splitlines()
        assert first.startswith("svc: line 2: not a job:")
        assert second.startswith(
            "svc: line 4: not a job: Object contains unknown field `arg`; did you mean args"
        )
        assert "`arg`" in second

    def test_in_json_an_error_has_its_line_and_each_id_too(self, svc, lines):
        ended = svc("submit", "--ndjson", "--from", lines('{"task": "t:f"}\n', "[]\n", '{"task": "t:f"}\n'))
        assert ended.code == 7
        assert [json.loads(line)["line"] for line in ended.lines] == [1, 3]
        assert set(ended.error) == {"code", "message", "hint", "retryable", "line"}
        assert ended.error["line"] == 2

    def test_a_line_may_set_its_own_terms_over_the_flags(self, svc, lines):
        path = lines('{"task": "t:f", "queue": "a", "priority": 1}\n', '{"task": "t:f", "delay": 60}\n')
        ended = svc("submit", "--from", path, "--queue", "b", "--priority", "5")
        one, two = svc("jobs", "show", *ended.lines, "--json").json
        assert (one["queue"], one["priority"], one["state"]) == ("a", 1, "ready")
        assert (two["queue"], two["priority"], two["state"]) == ("b", 5, "scheduled")

    def test_keys_within_a_stream_are_idempotent(self, svc, lines):
        ended = svc("submit", "--from", lines(*(['{"task": "t:f", "key": "k"}\n'] * 3)))
        assert ended.code == 0
        assert len(set(ended.lines)) == 1

    def test_when_nothing_was_accepted_the_exit_code_is_the_reason(self, svc, lines):
        svc("drain", "--refuse", "--no-wait")
        ended = svc("submit", "--from", lines(*(['{"task": "t:f"}\n'] * 2)))
        assert ended.code == 9
        assert len(ended.err.splitlines()) == 2

    def test_wait_prints_the_results_as_they_come(self, svc, lines, consumer):
        path = lines('{"task": "t:f", "args": [1]}\n', '{"task": "t:f", "args": [2]}\n')

        def work():
            consumer.succeed(lambda value: value * 10)
            consumer.succeed(lambda value: value * 10)

        thread = threading.Thread(target=work)
        thread.start()
        ended = svc("submit", "--from", path, "--wait")
        thread.join()
        assert ended.code == 0
        assert [line.split("\t")[1] for line in ended.lines] == ["10", "20"]

    def test_a_missing_file_is_a_usage_error(self, svc):
        ended = svc("submit", "--from", "nowhere.ndjson")
        assert ended.code == 2
        assert "nowhere.ndjson cannot be read: No such file" in ended.err
