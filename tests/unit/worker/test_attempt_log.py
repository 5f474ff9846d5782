from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from svc.domain.job import CALL, Cause, ErrorInfo, Terms
from svc.domain.replies import Delivery
from svc.worker.failure import Failure
from svc.worker.outbox import SHORT_SECONDS, AttemptLog, FinishedAttempt

DELIVERY = Delivery(
    1, "k3v9x0m2q7w1z", 10, Terms("m:f", "mail"), [b""], failures=2, crashes=1, interruptions=1
)


@pytest.fixture(autouse=True)
def log_of_everything() -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    yield
    structlog.configure(**before)


def line(attempt: FinishedAttempt) -> dict[str, Any]:
    with capture_logs() as logs:
        AttemptLog("w", "w-1").write(attempt)
    (found,) = logs
    return dict(found)


def test_a_success_is_one_line_with_all_there_is_to_know() -> None:
    assert line(FinishedAttempt(DELIVERY, 12, None, 1.5, 0.25)) == {
        "event": "attempt_finished",
        "log_level": "info",
        "worker": "w",
        "consumer": "w-1",
        "outcome": "succeeded",
        "job_id": "k3v9x0m2q7w1z-12",
        "task": "m:f",
        "queue": "mail",
        "attempt": 5,
        "wait_s": 1.5,
        "run_s": 0.25,
    }


def test_a_job_that_its_task_puts_off_is_no_warning() -> None:
    failure = Failure(ErrorInfo("Snooze", "later"), Cause.SNOOZED, permanent=False, delay=30.0)
    found = line(FinishedAttempt(DELIVERY, 12, failure, 1.5, 0.25, 30.0))
    assert (found["log_level"], found["outcome"], found["retry_in_s"]) == ("info", "snoozed", 30.0)


@pytest.mark.parametrize(
    ("task", "label", "shown"),
    [(CALL, "m:f", "m:f"), (CALL, "", CALL), ("m:f", "m:other", "m:f"), (CALL, "m:<lambda>", "m:<lambda>")],
)
def test_a_pickled_callable_has_its_own_name_in_the_log(task: str, label: str, shown: str) -> None:
    delivery = Delivery(1, "o", 0, Terms(task, label=label), [b""])
    assert line(FinishedAttempt(delivery, 0, None, 1.5, 0.25))["task"] == shown


def test_a_failure_says_why_and_when_it_is_tried_again() -> None:
    failure = Failure(ErrorInfo("ValueError", "bad", "Traceback…"), Cause.FAILED, permanent=False)
    found = line(FinishedAttempt(DELIVERY, 12, failure, 0.0, 0.0, retry_in=2.5))
    assert (found["log_level"], found["outcome"]) == ("warning", "failed")
    assert (found["error_type"], found["error"], found["retry_in_s"]) == ("ValueError", "bad", 2.5)


def test_a_job_that_is_given_up_has_no_next_time() -> None:
    failure = Failure(ErrorInfo("ArgumentError", "bad"), Cause.REFUSED, permanent=True)
    assert "retry_in_s" not in line(FinishedAttempt(DELIVERY, 12, failure, 0.0, 0.0))


@pytest.mark.parametrize(("level", "wanted"), [(logging.INFO, True), (logging.WARNING, False)])
def test_it_knows_whether_anyone_would_see_a_success(level: int, wanted: bool) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(level))
    assert AttemptLog("w", "w-1").wants_successes is wanted


# --- short successes --------------------------------------------------------------------------------


def lines_of(write: Callable[[AttemptLog], object]) -> list[dict[str, Any]]:
    with capture_logs() as logs:
        write(AttemptLog("w", "w-1"))
    return [dict(found) for found in logs]


def test_neighbouring_short_successes_share_one_line_that_names_the_first_and_the_last() -> None:
    def write(log: AttemptLog) -> None:
        log.succeeded(FinishedAttempt(DELIVERY, 12, None, 1.5, 0.0002))
        assert log.add(0.0005)
        assert log.add(0.0003)
        log.end()

    (found,) = lines_of(write)
    assert found == {
        "event": "attempts_finished",
        "log_level": "info",
        "worker": "w",
        "consumer": "w-1",
        "outcome": "succeeded",
        "jobs": 3,
        "first_job_id": "k3v9x0m2q7w1z-12",
        "last_job_id": "k3v9x0m2q7w1z-14",
        "task": "m:f",
        "queue": "mail",
        "wait_s": 1.5,
        "run_s": 0.001,
        "longest_run_s": 0.0005,
    }


def test_one_short_success_alone_has_the_usual_line() -> None:
    def write(log: AttemptLog) -> None:
        log.succeeded(FinishedAttempt(DELIVERY, 12, None, 1.5, 0.0002))
        log.end()
        log.end()

    assert [(each["event"], each["job_id"]) for each in lines_of(write)] == [
        ("attempt_finished", "k3v9x0m2q7w1z-12")
    ]


@pytest.mark.parametrize(
    "between",
    [
        FinishedAttempt(DELIVERY, 14, None, 0.0, SHORT_SECONDS),
        FinishedAttempt(DELIVERY, 14, Failure(ErrorInfo("E", ""), Cause.FAILED, permanent=False), 0.0, 0.0),
        FinishedAttempt(DELIVERY, 14, Failure(ErrorInfo("E", ""), Cause.REFUSED, permanent=True), 0.0, 0.0),
    ],
)
def test_a_long_or_failed_attempt_between_short_ones_parts_their_sums(between: FinishedAttempt) -> None:
    def write(log: AttemptLog) -> None:
        log.succeeded(FinishedAttempt(DELIVERY, 12, None, 0.0, 0.0))
        assert log.add(0.0)
        log.write(between)
        assert not log.add(0.0)
        log.succeeded(FinishedAttempt(DELIVERY, 15, None, 0.0, 0.0))
        assert log.add(0.0)
        log.end()

    found = lines_of(write)
    assert [each["event"] for each in found] == ["attempts_finished", "attempt_finished", "attempts_finished"]
    assert [each.get("first_job_id") for each in found] == ["k3v9x0m2q7w1z-12", None, "k3v9x0m2q7w1z-15"]


def test_successes_of_a_list_share_a_line_as_far_as_their_ids_follow_each_other() -> None:
    log = AttemptLog("w", "w-1")
    with capture_logs() as logs:
        for number in (10, 11, 12, 20):
            log.listed(FinishedAttempt(DELIVERY, number, None, 1.5, 0.25))
        log.end()
    shared, alone = logs
    assert (shared["event"], shared["jobs"]) == ("attempts_finished", 3)
    assert (shared["first_job_id"], shared["last_job_id"]) == ("k3v9x0m2q7w1z-10", "k3v9x0m2q7w1z-12")
    assert (shared["run_s"], shared["longest_run_s"]) == (0.25, 0.25)
    assert (alone["event"], alone["job_id"]) == ("attempt_finished", "k3v9x0m2q7w1z-20")
