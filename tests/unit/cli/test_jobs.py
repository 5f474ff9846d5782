from __future__ import annotations

from datetime import timedelta

import pytest

from svc.domain import commands as c
from svc.domain import replies as r
from tests.support.document_names import ATTEMPT, JOB


@pytest.fixture
def submitted(svc):
    return lambda *args: svc("submit", "t:f", *args).out.strip()


def test_a_job_has_these_names_in_json(svc, submitted, consumer):
    name = submitted("1")
    consumer.fail()
    job = svc("jobs", "show", name, "--json").json
    assert set(job) == JOB | {"last_lines"}
    (attempt,) = job["attempts"]
    assert set(attempt) == ATTEMPT
    assert set(attempt["error"]) == {"type", "message", "traceback"}
    assert (job["state"], job["failures"], attempt["cause"]) == ("dead", 1, "failed")


def test_show_tells_why_a_job_waits(svc, submitted, consumer):
    known, unknown = submitted("1"), svc("submit", "other:task").out.strip()
    assert "other:task" in svc("jobs", "show", unknown).out
    assert "knows the task" in svc("jobs", "show", unknown).out
    assert svc("jobs", "show", known, "--json").json["reason"] == "waits for an idle consumer"


def test_show_prints_the_counts_and_each_attempt_with_its_traceback(svc, submitted, consumer):
    name = submitted("1")
    consumer.fail("first", retry_in=0.0)
    consumer.fail("second")
    out = svc("jobs", "show", name).out
    for line in ("failures       2", "crashes        0", "interruptions  0", "suspicions     0"):
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


def test_a_waiting_job_is_cancelled_and_one_that_has_ended_is_not(svc, submitted, consumer):
    ended_job, waiting = submitted("1"), submitted("2")
    consumer.succeed()
    both = svc("jobs", "cancel", ended_job, waiting)
    assert (both.code, both.out) == (7, "cancelled 1 of 2; the others have ended\n")
    none = svc("jobs", "cancel", ended_job, "--json")
    assert (none.code, none.error["code"]) == (6, "conflict")
    assert svc("jobs", "cancel", "nobody-1").code == 5


def test_a_running_job_is_cancelled_and_its_worker_told(svc, submitted, consumer):
    running = submitted("1")
    (delivery,) = consumer.broker.lease(limit=1, wait=timedelta(seconds=5)).grant.deliveries
    assert svc("jobs", "cancel", running, "--grace", "2.5").out == "cancelled 1\n"
    (told,) = consumer.supervisor.report([c.Extend(told=True)])
    assert isinstance(told, r.Extended)
    assert told.stops == [r.Stop("w1/1", delivery.token, delivery.first, 2.5)]


def test_cancel_takes_a_task_a_queue_or_all_in_place_of_ids(svc, submitted):
    first, second, third = submitted("1"), submitted("2", "--queue", "q"), submitted("3")
    assert svc("jobs", "cancel", "--task", "t:f", "--queue", "q").out == "cancelled 1\n"
    assert svc("jobs", "show", second, "--json").json["state"] == "cancelled"
    assert svc("jobs", "cancel", "--queue", "nowhere").out == "cancelled 0\n"
    assert svc("jobs", "cancel", "--all", "--json").json == {"cancelled": 2, "left_alone": 0}
    assert {svc("jobs", "show", each, "--json").json["state"] for each in (first, third)} == {"cancelled"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("cancel", "--task", "t:g"), "no job that waits or runs of the task 't:g'; did you mean t:f?"),
        (("cancel", "--queue", "mial"), "no job that waits or runs of the queue 'mial'; did you mean mail?"),
        (("cancel", "--task", "t:f", "--queue", "mial"), "the task 't:f' and the queue 'mial'; did you mean"),
        (("cancel", "--task", "x"), "no job that waits or runs of the task 'x'\n"),
        (("requeue", "--queue", "mial"), "no dead job of the queue 'mial'; did you mean mail?"),
        (("requeue", "--queue", "mail"), "no dead job of the queue 'mail'\n"),
    ],
)
def test_a_choice_that_no_job_matches_is_told_with_the_name_that_may_be_meant(svc, submitted, words, told):
    submitted("1", "--queue", "mail")
    ended = svc("jobs", *words)
    assert (ended.code, ended.lines) == (0, ["cancelled 0" if words[0] == "cancel" else "requeued 0"])
    assert told in ended.err
    assert svc("jobs", *words, "--json").err == ""


@pytest.mark.parametrize("words", [(), ("o-1", "--all"), ("o-1", "--task", "t:f"), ("--all", "--queue", "q")])
def test_cancel_wants_ids_or_a_choice_and_not_both(words, svc):
    assert svc("jobs", "cancel", *words).code == 2


@pytest.mark.parametrize("grace", ["-1", "nan", "2d", "soon"])
def test_a_grace_out_of_bounds_is_a_usage_error(grace, svc):
    assert svc("jobs", "cancel", "o-1", "--grace", grace).code == 2


@pytest.mark.parametrize("timeout", ["0", "-1", "nan", "inf", "2d"])
def test_a_timeout_of_calls_out_of_bounds_is_a_usage_error(timeout, svc):
    ended = svc("jobs", "list", "--timeout", timeout)
    assert (ended.code, "--timeout" in ended.err) == (2, True)


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


@pytest.mark.parametrize("argv", [[], ["--queue", ""], ["x-1", "--all"], ["--all", "--queue", "q"]])
def test_requeue_wants_exactly_one_choice(svc, argv):
    assert svc("jobs", "requeue", *argv).code == 2


@pytest.mark.parametrize(
    ("verb", "one", "two"),
    [
        (
            "cancel",
            "the job was not cancelled: it has ended",
            "none of the 2 jobs was cancelled: all have ended",
        ),
        (
            "requeue",
            "the job was not requeued: only a dead job can be requeued",
            "none of the 2 jobs was requeued: only a dead job can be requeued",
        ),
    ],
)
def test_a_conflict_is_told_of_one_job_and_of_several(svc, submitted, consumer, verb, one, two):
    names = [submitted("1"), submitted("2")]
    consumer.succeed(limit=2)
    assert svc("jobs", verb, names[0]).err == f"svc: {one}\n"
    assert svc("jobs", verb, *names).err == f"svc: {two}\n"


def test_what_cannot_be_removed_is_told_of_one_job_and_of_several(svc, submitted):
    names = [submitted("1"), submitted("2")]
    one, two = svc("jobs", "purge", names[0], "--yes").err, svc("jobs", "purge", *names, "--yes").err
    assert one == "svc: the job cannot be removed: it has not ended, or is not known\n"
    assert two == "svc: none of the 2 jobs can be removed: none has ended, or none is known\n"


def test_requeue_of_a_job_that_is_not_dead_is_a_conflict(svc, submitted):
    assert svc("jobs", "requeue", submitted("1")).code == 6
