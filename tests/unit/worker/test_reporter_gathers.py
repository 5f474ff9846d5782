"""Checkpoints and progress that a reporter gathers, and sends on together."""

from __future__ import annotations

import pytest

from svc.domain import commands as c
from svc.domain.job import ErrorInfo
from svc.domain.limits import TOKENS_PER_INCARNATION
from svc.worker import pending_reports
from svc.worker import reporter as module
from tests.support.reporter_desk import SECONDS, Desk, Line


def reports(line: Line) -> list[str]:
    return [each.consumer for each in line.sent if isinstance(each, c.Lost)]


def lost(name: str) -> c.Lost:
    return c.Lost(name, ErrorInfo("E", "m"))


# --- checkpoints -----------------------------------------------------------------------------------


def checkpoints(line: Line) -> list[int]:
    return [each.number for each in line.sent if isinstance(each, c.Checkpoint)]


def checkpoint(line: Line, number: int, data: bytes = b"data") -> c.Checkpoint:
    """Return a checkpoint under a token of this manager's: it is refused, and not tried again."""
    return c.Checkpoint(line.welcome.incarnation * TOKENS_PER_INCARNATION + 7, number, data)


def requests_with_checkpoints(line: Line) -> int:
    """Count the requests in which checkpoints came: each request ends with a renewal."""
    kinds = [isinstance(each, c.Checkpoint) for each in line.sent]
    return sum(here and not after for here, after in zip(kinds, [*kinds[1:], False], strict=True))


def test_checkpoints_that_nobody_waits_for_travel_together(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TELL_SECONDS", 3600.0)
    line = desk.start()
    desk.keep(checkpoint(line, 0), awaited=False)  # begins a period
    line.until(lambda: checkpoints(line) == [0])
    for number in range(1, 300):
        desk.keep(checkpoint(line, number), awaited=False)
    desk.keep(checkpoint(line, 300), awaited=True)
    line.until(lambda: len(checkpoints(line)) == 301)
    assert checkpoints(line) == list(range(301))
    assert requests_with_checkpoints(line) == 2
    desk.reporter.close(SECONDS)


def test_a_report_of_a_crash_takes_the_checkpoints_before_it_along(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TELL_SECONDS", 3600.0)
    line = desk.start()
    desk.keep(checkpoint(line, 0), awaited=False)
    line.until(lambda: checkpoints(line) == [0])
    desk.keep(checkpoint(line, 1, b"last words"), awaited=False)
    desk.reporter.post(lost("w/1"))
    line.until(lambda: reports(line) == ["w/1"])
    kinds = [each for each in line.sent if isinstance(each, c.Checkpoint | c.Lost)]
    assert kinds[1:] == [checkpoint(line, 1, b"last words"), lost("w/1")]
    desk.reporter.close(SECONDS)


def test_gathered_checkpoints_arrive_by_themselves_also_after_a_break(desk: Desk) -> None:
    line = desk.start()
    line.away = True
    desk.keep(checkpoint(line, 5), awaited=False)
    assert line.refused.wait(SECONDS)
    line.away = False
    line.until(lambda: checkpoints(line) == [5])
    desk.reporter.close(SECONDS)


def test_a_reporter_that_closes_sends_the_checkpoints_that_are_left(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TELL_SECONDS", 3600.0)
    line = desk.start()
    for number in (0, 1):
        desk.keep(checkpoint(line, number), awaited=False)
        line.until(lambda: checkpoints(line)[:1] == [0])
    desk.reporter.close(SECONDS)
    assert checkpoints(line) == [0, 1]


# --- progress --------------------------------------------------------------------------------------


def told(line: Line) -> list[list[int]]:
    """Return the jobs of each report of progress."""
    return [[job.number for job in each.reports] for each in line.sent if isinstance(each, c.TellProgress)]


def test_progress_of_very_many_jobs_is_delayed_and_each_gets_its_last_report_through(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "TELL_SECONDS", 0.01)
    jobs = 2 * pending_reports.TOLD_MAX + 1
    for number in range(jobs):
        desk.reporter.tell(c.JobProgress(7, number, 0.5))
        desk.reporter.tell(c.JobProgress(7, number, 1.0))
    line = desk.start()
    line.until(lambda: sum(map(len, told(line))) >= jobs)
    assert [(each[0], len(each)) for each in told(line)] == [
        (0, pending_reports.TOLD_MAX),
        (pending_reports.TOLD_MAX, pending_reports.TOLD_MAX),
        (2 * pending_reports.TOLD_MAX, 1),
    ]
    assert {job.done for each in line.sent if isinstance(each, c.TellProgress) for job in each.reports} == {
        1.0
    }
    desk.reporter.close(SECONDS)


def test_progress_that_was_told_in_vain_is_told_again(desk: Desk) -> None:
    line = desk.start()
    line.away = True
    desk.reporter.tell(c.JobProgress(7, 1, 1.0))
    line.until(lambda: any(isinstance(each, c.TellProgress) for each in line.in_vain))
    line.away = False
    line.until(lambda: told(line) == [[1]])
    desk.reporter.close(SECONDS)


def test_progress_that_waits_is_bounded_and_the_oldest_gives_way(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending_reports, "PROGRESS_MAX", 3)
    for number in range(5):
        desk.reporter.tell(c.JobProgress(7, number, 1.0))
    line = desk.start()
    line.until(lambda: told(line) == [[2, 3, 4]])
    desk.reporter.close(SECONDS)
