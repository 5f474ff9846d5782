"""The counts of a wait: rate, time left, and lines that hold for every number."""

from __future__ import annotations

import math

import pytest

from svc.cli.tally import ProgressPace, Tally, bar_of, progress_line
from svc.domain.job import Outcome
from svc.domain.job_view import Progress
from svc.domain.lifecycle import JobState


def ended(at: float, state: JobState = JobState.SUCCEEDED) -> Outcome:
    return Outcome("o-0", state, finished_at=at)


def test_all_that_is_asked_for_is_in_the_line():
    tally = Tally(1000, 50.0)
    for number in range(100):
        tally.add(ended(7000.0 + number / 10, JobState.DEAD if number < 3 else JobState.SUCCEEDED), 60.0)
    assert tally.line(60.0) == "97 of 1,000 done, 3 failed, 10/s, 1 min 30 s left"
    assert tally.bar(60.0).startswith("[##----------------------]  10 %  97 of 1,000 done")
    assert tally.last_line(60.0) == "1,000 jobs: 97 done, 3 failed, in 10 s"


def test_nothing_is_guessed_before_the_first_job_has_ended():
    assert Tally(5, 0.0).line(9.0) == "0 of 5 done, 0 failed"
    assert Tally(5, 0.0).left(9.0) is None


def test_jobs_that_ended_long_ago_do_not_raise_the_rate():
    tally = Tally(200, 0.0)
    for _ in range(100):
        tally.add(ended(1000.0), 0.1)
    for number in range(10):
        tally.add(ended(5000.0 + number), 0.2)
    assert tally.rate(0.2) == pytest.approx(10 / 30)


def test_a_rate_falls_if_no_job_ends():
    tally = Tally(200, 0.0)
    for number in range(30):
        tally.add(ended(5000.0 + number), 0.2)
    assert tally.rate(0.2) == pytest.approx(1.0, rel=0.1)
    assert tally.rate(20.2) < 0.6
    assert tally.rate(60.0) == 0.0
    assert tally.line(60.0) == "30 of 200 done, 0 failed, 0/s"


def test_a_cancelled_job_counts_as_failed():
    tally = Tally(1, 0.0)
    tally.add(ended(1.0, JobState.CANCELLED), 0.0)
    assert (tally.succeeded, tally.failed, tally.ended) == (0, 1, 1)


@pytest.mark.parametrize("share", [-1.0, 0.0, 0.999999, 1.0, 7.0, math.inf])
def test_a_bar_has_the_same_width_for_each_share_and_is_full_at_the_end_only(share: float):
    bar = bar_of(share)
    assert len(bar) == len(bar_of(0.5))
    assert bar.endswith("100 %") == (share >= 1)


@pytest.mark.parametrize(
    ("progress", "line"),
    [
        (Progress(3, 10, "third"), "[#######-----------------]  30 %  3 of 10: third"),
        (Progress(3), "3"),
        (Progress(0, 0), "0 of 0"),
        (Progress(12, 10), "[########################] 100 %  12 of 10"),
        (Progress(1234567.5, 1e30, "much"), "[------------------------]   0 %  1,234,567.5 of 1e+30: much"),
    ],
)
def test_the_progress_of_a_job_is_shown_whatever_it_tells(progress: Progress, line: str):
    assert progress_line(progress) == line


def test_two_reports_of_a_job_tell_the_time_that_is_left():
    pace = ProgressPace()
    assert "left" not in pace.line(Progress(1, 10), 100.0)
    assert pace.line(Progress(3, 10, "third"), 104.0).endswith("3 of 10: third, 14 s left")
    assert "left" not in pace.line(Progress(10, 10), 120.0)
    assert "left" not in pace.line(Progress(2), 121.0)


def test_another_attempt_that_begins_anew_has_a_pace_of_its_own():
    pace = ProgressPace()
    pace.line(Progress(8, 10), 100.0)
    assert "left" not in pace.line(Progress(1, 10), 200.0)
    assert pace.line(Progress(2, 10), 201.0).endswith("2 of 10, 8.0 s left")


def test_an_absurd_total_ends_in_a_century():
    pace = ProgressPace()
    pace.line(Progress(0, 1e30), 100.0)
    assert pace.line(Progress(1e-285, 1e30), 200.0).endswith("36525 d left")
    assert "left" not in pace.line(Progress(1e-300, 1e30), 300.0)
