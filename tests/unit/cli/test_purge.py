from __future__ import annotations

import io
import sys

import pytest


@pytest.fixture
def ended(svc, consumer):
    """Two jobs that succeeded, one that is dead, and one that waits."""
    names = [svc("submit", "t:f", str(number)).out.strip() for number in range(4)]
    consumer.succeed()
    consumer.succeed()
    consumer.fail()
    return names


@pytest.fixture
def terminal(monkeypatch):
    """Standard input is a terminal on which somebody types."""

    def typed(text: str) -> None:
        stdin = io.StringIO(text)
        stdin.isatty = lambda: True  # type: ignore[method-assign]
        monkeypatch.setattr(sys, "stdin", stdin)

    return typed


def left(svc):
    return sorted(job["id"] for job in svc("jobs", "list", "--json").json)


@pytest.mark.parametrize(
    ("argv", "count"),
    [
        (["--state", "dead"], 1),
        (["--state", "dead", "--state", "succeeded"], 3),
        (["--queue", "default"], 3),
        (["--task", "t:f", "--state", "succeeded"], 2),
        (["--task", "t:g"], 0),
        (["--older-than", "1h"], 0),
        (["--all"], 3),
    ],
)
def test_jobs_that_have_ended_and_match_are_removed(svc, ended, argv, count):
    before = left(svc)
    assert svc("jobs", "purge", *argv, "--dry-run").out == f"would purge {count}\n"
    assert left(svc) == before
    assert svc("jobs", "purge", *argv).out == f"purged {count}\n"
    assert len(left(svc)) == 4 - count


def test_jobs_are_removed_by_id_and_unknown_then(svc, ended):
    assert svc("jobs", "purge", ended[0], "--json").json == {"purged": 1, "left_alone": 0}
    shown = svc("jobs", "show", ended[0])
    assert shown.code == 5
    assert "there is no job" in shown.err
    assert svc("results", ended[0]).code == 5


def test_a_job_that_waits_is_left_alone(svc, ended):
    partly = svc("jobs", "purge", ended[1], ended[3])
    assert (partly.code, partly.out) == (
        7,
        "purged 1 of 2; the others have not ended, or are not known\n",
    )
    assert svc("jobs", "purge", ended[3]).code == 6
    assert ended[3] in left(svc)


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["x-0", "--all"],
        ["x-0", "--state", "dead"],
        ["--all", "--queue", "q"],
        ["--state", "ready"],
        ["--older-than", "-1"],
        ["--older-than", "nan"],
    ],
)
def test_a_purge_without_a_condition_or_with_an_odd_one_is_refused(svc, argv):
    assert svc("jobs", "purge", *argv).code == 2


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_on_a_terminal_it_asks_and_only_a_yes_removes_jobs(svc, ended, terminal, answer):
    terminal(answer)
    asked = svc("jobs", "purge", "--state", "dead", "--queue", "default")
    assert asked.code != 0
    assert "remove 1 dead job of the queue default for good? [y/N]" in asked.err
    assert len(left(svc)) == 4


@pytest.mark.parametrize(("argv", "typed"), [(["--yes"], ""), ([], "y\n")])
def test_a_yes_removes_them(svc, ended, terminal, argv, typed):
    terminal(typed)
    assert svc("jobs", "purge", "--all", *argv).out == "purged 3\n"
    assert len(left(svc)) == 1


def test_a_no_is_answered_that_nothing_was_removed(svc, ended, terminal):
    terminal("n\n")
    refused = svc("jobs", "purge", "--all")
    assert (refused.code, refused.out) == (130, "")
    assert refused.err.endswith("svc: nothing was removed\n")
    assert len(left(svc)) == 4


def test_nothing_is_asked_if_nothing_matches(svc, ended, terminal):
    terminal("")
    assert svc("jobs", "purge", "--task", "t:g").out == "purged 0\n"


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--task", "t:g"], "no matching ended job of the task 't:g'; did you mean t:f?"),
        (["--queue", "defualt"], "no matching ended job of the queue 'defualt'; did you mean default?"),
        (["--task", "t:f", "--state", "cancelled"], "no matching ended job of the task 't:f'\n"),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_a_choice_that_no_ended_job_matches_is_told_with_the_name_that_may_be_meant(
    svc, ended, argv, told, dry
):
    purged = svc("jobs", "purge", *argv, *dry)
    assert purged.code == 0
    assert told in purged.err
    assert svc("jobs", "purge", *argv, *dry, "--json").err == ""
