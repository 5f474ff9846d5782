"""The reporter with the real queue in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import pytest
from structlog.testing import capture_logs

from svc.broker.local import LocalBroker
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.job import ErrorInfo
from svc.errors import AuthenticationFailed, ManagerUnreachable
from tests.support.reporter_desk import HELLO, SECONDS, Desk, Line
from tests.support.workers import until


def reports(line: Line) -> list[str]:
    return [each.consumer for each in line.sent if isinstance(each, c.Lost)]


def lost(name: str) -> c.Lost:
    return c.Lost(name, ErrorInfo("E", "m"))


def test_leases_are_renewed_again_and_again(desk: Desk) -> None:
    line = desk.start()
    line.until(lambda: line.sent.count(c.Extend(busy=2)) > 3)
    desk.reporter.close(SECONDS)


def test_a_round_trip_is_measured_at_the_start_and_anew_over_a_new_connection(desk: Desk) -> None:
    line = desk.start()
    line.until(lambda: len(desk.reporter._round_trip._times) == 3)
    assert 0 < desk.reporter.round_trip < SECONDS
    desk.reporter._greet()
    assert desk.reporter.round_trip == 0
    line.until(lambda: desk.reporter.round_trip)
    desk.reporter.close(SECONDS)


@pytest.mark.parametrize("worker", ["", "w"])
def test_each_renewal_tells_whether_a_drain_is_in_force(desk: Desk, worker: str) -> None:
    desk.told = True
    LocalBroker(desk.queue).drain(worker=worker)
    line = desk.start()
    line.until(lambda: len(desk.drains) > 1)
    assert all(desk.drains)
    line.call([c.Resume(worker)])
    line.until(lambda: not desk.drains[-1])
    desk.reporter.close(SECONDS)


class OrderedLine(Line):
    """A connection over which the first renewal that waits is answered with an order to take jobs back."""

    #: How many requests had been sent by then; 0 before.
    ordered = 0
    woken = False

    def call(self, commands: Sequence[c.AnyCommand], *, wait: float = 0.0) -> list[r.AnyReply]:
        replies = super().call(commands, wait=0.0 if not self.ordered else wait)
        if wait and not self.ordered:
            self.ordered = len(self.sent)
            return [r.Extended(take_back=[r.TakeBack("w-1", 1, 0.0, SECONDS)])]
        return replies

    def wake(self, *told: c.Recall) -> None:
        self.woken = bool(self.ordered)
        super().wake(*told)


def test_after_an_order_to_take_jobs_back_the_report_of_that_is_the_next_request(desk: Desk) -> None:
    """It does not wait at the manager meanwhile: the end of that wait would take a round trip."""
    desk.told, desk.line = True, OrderedLine
    recall = c.Recall("w-1", 1, 0, 1)

    def renewed(reply: r.Extended) -> None:
        if reply.take_back:
            threading.Thread(target=desk.reporter.post, args=[recall]).start()

    desk.renewed = renewed
    line = desk.start()
    line.until(lambda: recall in line.sent)
    assert isinstance(line, OrderedLine)
    assert line.sent[line.ordered] == recall
    assert not line.woken
    desk.reporter.close(SECONDS)


def test_a_manager_that_does_not_tell_has_said_nothing_of_drains(desk: Desk) -> None:
    line = desk.start()
    line.until(lambda: line.sent.count(c.Extend(busy=2)) > 3)
    assert desk.drains == []
    desk.reporter.close(SECONDS)


def test_reports_arrive_in_order(desk: Desk) -> None:
    line = desk.start()
    desk.reporter.post(lost("a"), lost("b"))
    desk.reporter.post(lost("c"))
    line.until(lambda: reports(line) == ["a", "b", "c"])
    desk.reporter.close(SECONDS)


def test_reports_wait_for_a_manager_that_is_away(desk: Desk) -> None:
    line = desk.start()
    line.away = True
    desk.reporter.post(lost("a"))
    desk.reporter.post(lost("b"))
    line.until(lambda: True)
    line.away = False
    line.until(lambda: reports(line) == ["a", "b"])
    desk.reporter.close(SECONDS)


def test_closing_delivers_what_is_pending_and_leaves(desk: Desk) -> None:
    line = desk.start()
    desk.reporter.post(lost("a"))
    desk.reporter.close(SECONDS)
    assert reports(line) == ["a"]
    assert c.Leave() in line.sent
    assert desk.queue.host.state.workers == {} or not desk.queue.host.state.workers["w"].supervised


def test_closing_gives_up_when_patience_ends_and_says_so(desk: Desk) -> None:
    line = desk.start()
    line.away = True
    # Of these, those that tell of no job are missed by nobody.
    desk.reporter.post(
        lost("a"), c.Extend(stopping=True), c.Release(7, 0), c.Lost("b", ErrorInfo("E", "m"), 8, 0)
    )
    with capture_logs() as logs:
        desk.reporter.close(0.05)
    assert [log["count"] for log in logs if log["event"] == "reports_undelivered"] == [2]


def test_a_worker_that_ran_nothing_has_no_reports_to_miss(desk: Desk) -> None:
    line = desk.start()
    line.away = True
    desk.reporter.post(c.Extend(stopping=True), lost("a"), lost("b"))
    with capture_logs() as logs:
        desk.reporter.close(0.05)
    assert [log for log in logs if log["event"] == "reports_undelivered"] == []


def test_closing_before_the_start_is_harmless(desk: Desk) -> None:
    desk.reporter.close(SECONDS)


def test_a_refused_authkey_at_the_start_ends_it(desk: Desk) -> None:
    desk.refusal = AuthenticationFailed()
    desk.reporter.start()
    desk.reporter._thread.join(SECONDS)
    assert desk.errors == [desk.refusal]


def test_a_manager_that_is_not_there_at_the_start_is_waited_for(desk: Desk) -> None:
    desk.refusal = ManagerUnreachable()
    desk.reporter.start()
    assert desk.asked.wait(SECONDS)
    assert not desk.reporter.connected
    desk.refusal = None
    while not desk.lines:
        pass
    desk.lines[0].until(lambda: desk.reporter.connected)
    desk.reporter.close(SECONDS)
    assert desk.errors == []


def test_an_unexpected_error_does_not_end_the_renewals(desk: Desk) -> None:
    line = desk.start()
    desk.reporter._extend = iter([1 / 1, c.Extend(busy=9)]).__next__  # type: ignore[assignment]
    line.until(lambda: c.Extend(busy=9) in line.sent)
    desk.reporter._extend = c.Extend
    desk.reporter.close(SECONDS)


def test_a_new_hello_is_told_as_a_reconnection(desk: Desk) -> None:
    line = desk.start()
    assert (desk.reporter.reconnects, desk.reconnections) == (0, 0)
    assert line.hello() is HELLO
    assert (desk.reporter.reconnects, desk.reconnections) == (1, 1)
    desk.reporter.close(SECONDS)


def test_complaints_about_silence_do_not_flood(desk: Desk) -> None:
    line = desk.start()
    line.away = True
    line.until(lambda: True)
    now = time.monotonic()
    with capture_logs() as logs:
        for seconds in range(100):
            desk.reporter.warn_of_silence(now + seconds)
    complaints = [log for log in logs if log["event"] == "manager_unreachable"]
    assert len(complaints) == 4
    line.away = False
    desk.reporter.close(SECONDS)


def test_a_complaint_about_silence_tells_why_the_attempts_to_connect_fail(desk: Desk) -> None:
    line = desk.start()
    line.trouble = "connection refused"
    with capture_logs() as logs:
        desk.reporter.warn_of_silence(time.monotonic() + 30.0)
    assert [log["error"] for log in logs if log["event"] == "manager_unreachable"] == ["connection refused"]
    desk.reporter.close(SECONDS)


def test_a_refused_report_is_logged_and_done_with(desk: Desk) -> None:
    with capture_logs() as logs:
        line = desk.start()
        desk.reporter.post(c.Release(12345, 0))
        desk.reporter.close(SECONDS)
    assert [log["report"] for log in logs if log["event"] == "report_refused"] == ["release"]
    assert line.sent.count(c.Release(12345, 0)) == 1


def test_a_supervisor_that_hangs_has_no_lease_renewed_until_it_turns_again(desk: Desk) -> None:
    line = desk.start()
    desk.alive = False
    until(lambda: _renewals_during(line, 0.1) == 0)
    desk.alive = True
    renewed = len(line.sent)
    line.until(lambda: len(line.sent) > renewed)
    desk.reporter.close(SECONDS)


def _renewals_during(line: Line, seconds: float) -> int:
    """Return how many requests came; the reporter sends one in each hundredth of a second."""
    before = len(line.sent)
    time.sleep(seconds)
    return len(line.sent) - before
