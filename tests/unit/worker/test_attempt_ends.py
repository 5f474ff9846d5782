"""`Retry`, `GiveUp` and `Snooze`, as a task raises them and as the runner takes them."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest

from svc import GiveUp, Retry, Snooze
from svc.codec import PLAIN, encode_arguments
from svc.domain.commands import Nack
from svc.domain.job import Cause, Terms
from svc.domain.limits import SECONDS_MAX
from svc.domain.retry import RetryPolicy
from svc.errors import ConfigurationError
from svc.worker.failure import Failure
from svc.worker.registry import Registry, Task
from svc.worker.runner import Runner

POLICY = RetryPolicy(retries=3, backoff=8.0)
#: Times that are none, each with a word of the answer.
BAD = [
    (-1, "-1"),
    (-0.001, "-0.001"),
    (math.nan, "nan"),
    (math.inf, "inf"),
    (SECONDS_MAX * 1.01, "e+"),
    (10**400, "beyond all bounds"),
    ("5", "'5'"),
    (True, "True"),
    ([5], "of the type list"),
]


def failure_of(error: BaseException, *, cause: BaseException | None = None) -> Failure:
    def task() -> None:
        raise error from cause

    runner = Runner(Registry([Task("m:f", task)]), (PLAIN,), 1000)
    result = runner.resolve(Terms("m:f")).run(encode_arguments(PLAIN, (), {}))
    assert isinstance(result, Failure)
    return result


def test_a_retry_is_a_failure_with_a_time_of_its_own() -> None:
    found = failure_of(Retry("busy", delay=5))
    assert (found.cause, found.error.type, found.error.message) == (Cause.FAILED, "Retry", "busy")
    assert [found.retry_in(POLICY, failures, 0.5) for failures in (1, 3, 4)] == [5.0, 5.0, None]


def test_a_retry_without_a_delay_takes_the_backoff() -> None:
    assert failure_of(Retry()).retry_in(POLICY, 1, 1.0) == 8.0


def test_a_retry_at_once_is_no_backoff() -> None:
    assert failure_of(Retry(delay=0)).retry_in(POLICY, 1, 1.0) == 0.0


def test_giving_up_leaves_no_retry() -> None:
    found = failure_of(GiveUp("no such account"))
    assert (found.cause, found.retry_in(POLICY, 1, 0.5)) == (Cause.FAILED, None)
    assert (found.error.type, found.error.message) == ("GiveUp", "no such account")


def test_a_snooze_asks_for_another_attempt_however_often_the_job_has_failed() -> None:
    found = failure_of(Snooze(30, "not ready"))
    assert (found.cause, found.retry_in(POLICY, 99, 0.5)) == (Cause.SNOOZED, 30.0)
    assert (found.error.message, found.error.traceback) == ("not ready", "")


def test_an_older_manager_reads_a_snooze_as_an_interruption() -> None:
    nack = failure_of(Snooze(30)).nack(7, 1, 30.0, 0.5)
    assert nack == Nack(7, 1, nack.error, 30.0, Cause.INTERRUPTED, 0.5, snoozed=True)


@pytest.mark.parametrize("kind", [Retry, GiveUp])
def test_without_a_message_the_error_before_it_is_told(kind: type[Retry | GiveUp]) -> None:
    error = failure_of(kind(), cause=ConnectionError("refused")).error
    assert (error.type, error.message) == (kind.__name__, "ConnectionError: refused")
    assert "ConnectionError: refused" in error.traceback


@pytest.mark.parametrize("error", [Retry(), GiveUp()])
def test_a_failure_without_anything_to_tell_tells_its_class(error: Exception) -> None:
    assert failure_of(error).error.message == (type(error).__doc__ or "").partition("\n")[0]


def test_a_snooze_without_anything_to_tell_is_no_error_with_a_text() -> None:
    assert failure_of(Snooze(1)).error.message == ""


@pytest.mark.parametrize(("value", "shown"), BAD)
def test_a_time_out_of_bounds_is_refused_where_it_is_written(value: Any, shown: str) -> None:
    for make in (lambda: Retry(delay=value), lambda: Snooze(value)):
        with pytest.raises(ConfigurationError) as refused:
            make()
        assert shown in str(refused.value)
        assert "from 0 to" in str(refused.value)


def test_a_time_out_of_bounds_is_a_charged_failure_of_the_attempt() -> None:
    def task() -> None:
        raise Snooze(-1)

    runner = Runner(Registry([Task("m:f", task)]), (PLAIN,), 1000)
    found = runner.resolve(Terms("m:f")).run(encode_arguments(PLAIN, (), {}))
    assert isinstance(found, Failure)
    assert (found.cause, found.error.type) == (Cause.FAILED, "ConfigurationError")
    assert found.retry_in(POLICY, 4, 0.5) is None


def test_a_time_that_was_changed_later_is_a_charged_failure_too() -> None:
    changed = Snooze(1)
    changed.seconds = math.nan
    assert failure_of(changed).error.type == "ConfigurationError"


def test_a_class_of_the_task_without_a_time_is_a_charged_failure() -> None:
    class Own(Snooze):
        def __init__(self) -> None:
            pass

    found = failure_of(Own())
    assert (found.cause, found.error.type) == (Cause.FAILED, "AttributeError")


@pytest.mark.parametrize("error", [Retry("busy", delay=5), Retry(), GiveUp("no"), Snooze(30, "later")])
def test_they_survive_a_pickle(error: Any) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
