from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from service.domain.job import Cause, ErrorInfo, Terms
from service.domain.replies import Delivery
from service.worker.report import Attempt, AttemptLog
from service.worker.runner import Failure

DELIVERY = Delivery(
    1, "k3v9x0m2q7w1z", 10, Terms("m:f", "mail"), [b""], failures=2, crashes=1, interruptions=1
)


@pytest.fixture(autouse=True)
def log_of_everything() -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    yield
    structlog.configure(**before)


def line(attempt: Attempt) -> dict[str, Any]:
    with capture_logs() as logs:
        AttemptLog("w", "w-1").write(attempt)
    (found,) = logs
    return dict(found)


def test_a_success_is_one_line_with_all_there_is_to_know() -> None:
    assert line(Attempt(DELIVERY, 12, b"", 1.5, 0.25)) == {
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


def test_a_failure_says_why_and_when_it_is_tried_again() -> None:
    failure = Failure(ErrorInfo("ValueError", "bad", "Traceback…"), Cause.FAILED, permanent=False)
    found = line(Attempt(DELIVERY, 12, failure, 0.0, 0.0, retry_in=2.5))
    assert (found["log_level"], found["outcome"]) == ("warning", "failed")
    assert (found["error_type"], found["error"], found["retry_in_s"]) == ("ValueError", "bad", 2.5)


def test_a_job_that_is_given_up_has_no_next_time() -> None:
    failure = Failure(ErrorInfo("ArgumentError", "bad"), Cause.REFUSED, permanent=True)
    assert "retry_in_s" not in line(Attempt(DELIVERY, 12, failure, 0.0, 0.0))


@pytest.mark.parametrize(("level", "wanted"), [(logging.INFO, True), (logging.WARNING, False)])
def test_it_knows_whether_anyone_would_see_a_success(level: int, wanted: bool) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(level))
    assert AttemptLog("w", "w-1").wants_successes is wanted
