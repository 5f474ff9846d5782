"""Proposals in place of a name that nobody knows."""

from __future__ import annotations

import pytest

from svc.domain.names import did_you_mean

TASKS = ["mytasks:add", "mytasks:fetch", "mytasks:simulate", "greet"]


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("mytasks:ad", "mytasks:add"),
        ("add", "mytasks:add"),
        ("mytask:add", "mytasks:add"),
        ("MyTasks:Add", "mytasks:add"),
        ("mytasks.fetch", "mytasks:fetch"),
        ("grete", "greet"),
        ("mytasks:simulat", "mytasks:simulate"),
    ],
)
def test_the_nearest_name_is_proposed(name, near):
    assert did_you_mean(name, TASKS) == f"; did you mean {near}?"


@pytest.mark.parametrize("name", ["xylophone", "", "9", "other:thing" * 100])
def test_what_is_near_to_nothing_gets_no_proposal(name):
    assert did_you_mean(name, TASKS) == ""


def test_a_name_that_two_modules_have_is_proposed_from_both_or_one():
    assert did_you_mean("add", ["a:add", "b:add"]) in ("; did you mean a:add?", "; did you mean b:add?")
    assert did_you_mean("x", []) == ""


def test_of_many_near_names_three_are_proposed():
    assert did_you_mean("job0", [f"job{number}" for number in range(1, 100)]).count(" or ") == 2
