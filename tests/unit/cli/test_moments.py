"""Times as the command line prints them, also such as older managers have accepted."""

from __future__ import annotations

import json
import math
import time

import pytest

from svc.cli.documents import job_document
from svc.cli.output import age, distance, moment, span
from svc.domain.job_view import JobView


@pytest.mark.parametrize("due", [math.inf, 1e308, 1e18, 253_402_300_800.0, 99_999_999_999 * 86_400.0])
def test_a_job_that_is_never_due_can_be_printed(due):
    view = JobView("o-0", "t:f", "default", "scheduled", 0, "plain", 1.0, due_at=due)
    assert json.loads(json.dumps(job_document(view)))["due_at"] == "9999-12-31T23:59:59.000Z"
    assert distance(due).startswith("in ")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.5, "500 ms"), (5.0, "5.0 s"), (30.0, "30 s"), (3600.0, "1 h"), (90_000.0, "1 d 1 h")],
)
def test_a_time_that_comes_and_one_that_has_passed_are_told_apart(monkeypatch, seconds, text):
    monkeypatch.setattr(time, "time", lambda: 1_700_000_000.0)
    assert distance(1_700_000_000.0 + seconds) == f"in {text}"
    assert distance(1_700_000_000.0 - seconds) == f"{text} ago"


@pytest.mark.parametrize("seconds", [0.5, 5.0, 30.0, 3600.0])
def test_a_duration_has_no_sign(seconds):
    assert span(-seconds) == span(seconds)


def test_nothing_is_younger_than_new():
    assert age(time.time() + 3600) == "0 ms"
    assert age(None) == ""


def test_other_times_are_told_as_they_are():
    assert moment(1_700_000_000.25) == "2023-11-14T22:13:20.250Z"
    assert moment(None) is None
