import pytest

from tests.support.document_names import JOB


@pytest.fixture
def submitted(svc):
    return lambda *args: svc("submit", "t:f", *args).out.strip()


def test_a_job_has_these_names_in_json(svc, submitted, consumer):
    name = submitted("1")
    consumer.fail()
    job = svc("jobs", "show", name, "--json").json
    assert set(job) == JOB
    (attempt,) = job["attempts"]
    assert set(attempt) == {"number", "at", "cause", "seconds", "consumer", "error"}
    assert set(attempt["error"]) == {"type", "message", "traceback"}
    assert (job["state"], job["failures"], attempt["cause"]) == ("dead", 1, "failed")


def test_show_tells_why_a_job_waits(svc, submitted, consumer):
    known, unknown = submitted("1"), svc("submit", "other:task").out.strip()
    assert "other:task" in svc("jobs", "show", unknown).out
    assert "knows the task" in svc("jobs", "show", unknown).out
    assert svc("jobs", "show", known, "--json").json["reason"] == "waits for an idle consumer"


def test_show_prints_the_three_counts_and_each_attempt_with_its_traceback(svc, submitted, consumer):
    name = submitted("1")
    consumer.fail("first", retry_in=0.0)
    consumer.fail("second")
    out = svc("jobs", "show", name).out
    for line in ("failures       2", "crashes        0", "interruptions  0"):
        assert line in out
    assert out.index("attempt 1: failed") < out.index("ValueError: first") < out.index("attempt 2: failed")
    assert out.count("Traceback (most recent call last):") == 2


def test_control_characters_of_a_task_reach_no_terminal(svc, submitted, consumer):
    name = submitted("1")
    consumer.fail("\x1b]0;owned\x07")
    out = svc("jobs", "show", name).out
    assert "\x1b" not in out
    assert "\\x1b]0;owned\\x07" in out


def test_several_jobs_are_a_list(svc, submitted):
    names = [submitted("1"), submitted("2")]
    assert [job["id"] for job in svc("jobs", "show", *names, "--json").json] == names
    assert len(svc("jobs", "show", *names, "--ndjson").lines) == 2


def test_an_unknown_job_gives_exit_code_5(svc):
    ended = svc("jobs", "show", "k3v9x0m2q7w1z-7")
    assert (ended.code, ended.out) == (5, "")
    assert len(ended.err.splitlines()) == 1


def test_list_is_newest_first_and_takes_filters(svc, submitted, consumer):
    one, two = submitted("1"), submitted("2", "--queue", "mail")
    consumer.fail()
    assert [job["id"] for job in svc("jobs", "list", "--json").json] == [two, one]
    assert [job["id"] for job in svc("jobs", "list", "--json", "--state", "dead").json] == [one]
    assert [job["id"] for job in svc("jobs", "list", "--json", "--queue", "mail").json] == [two]
    assert len(svc("jobs", "list", "--ndjson", "--limit", "1").lines) == 1
    assert one in svc("jobs", "list", "--task", "t:f").out


def test_no_jobs_are_told_on_stderr(svc):
    ended = svc("jobs", "list")
    assert (ended.code, ended.out, ended.err) == (0, "", "no jobs\n")


def test_a_state_that_does_not_exist_is_a_usage_error(svc):
    assert svc("jobs", "list", "--state", "lost").code == 2


def test_a_waiting_job_is_cancelled_and_one_that_runs_is_not(svc, submitted, consumer):
    ended_job, waiting = submitted("1"), submitted("2")
    consumer.succeed()
    both = svc("jobs", "cancel", ended_job, waiting)
    assert (both.code, both.out) == (7, "cancelled 1 of 2; only a waiting job can be cancelled\n")
    none = svc("jobs", "cancel", ended_job, "--json")
    assert (none.code, none.error["code"]) == (6, "conflict")
    assert svc("jobs", "cancel", "nobody-1").code == 5


def test_cancel_counts_in_json(svc, submitted):
    assert svc("jobs", "cancel", submitted("1"), "--json").json == {"cancelled": 1, "left_alone": 0}


def test_a_dead_job_is_requeued_and_runs_again(svc, submitted, consumer):
    name = submitted("1")
    consumer.fail()
    assert svc("jobs", "requeue", name).out == "requeued 1\n"
    consumer.succeed()
    assert svc("jobs", "show", name, "--json").json["state"] == "succeeded"


def test_requeue_takes_a_queue_or_all_in_place_of_ids(svc, submitted, consumer):
    for _ in range(2):
        submitted("1")
        consumer.fail()
    assert svc("jobs", "requeue", "--queue", "other", "--json").json == {"requeued": 0, "left_alone": 0}
    assert svc("jobs", "requeue", "--all", "--json").json == {"requeued": 2, "left_alone": 0}


@pytest.mark.parametrize("argv", [[], ["x-1", "--all"], ["--all", "--queue", "q"]])
def test_requeue_wants_exactly_one_choice(svc, argv):
    assert svc("jobs", "requeue", *argv).code == 2


def test_requeue_of_a_job_that_is_not_dead_is_a_conflict(svc, submitted):
    assert svc("jobs", "requeue", submitted("1")).code == 6
