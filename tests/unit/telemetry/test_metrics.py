"""The manager's counts, read back from the exposition as a scraper reads it."""

from __future__ import annotations

import math
import threading
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svc.domain.job import CALL, Cause, Terms
from svc.domain.observer import Observer
from svc.domain.replies import QueueStats, Totals
from svc.errors import ServiceError
from svc.telemetry.catalogue import JOB_SECONDS
from svc.telemetry.label_values import LABEL_BOUNDS, OTHER, REJECTIONS
from svc.telemetry.metrics import Histogram, ManagerMetrics
from tests.support.exposition import NOTHING, TERMS, exposition, live, read, value


def job(metrics: ManagerMetrics, name: str, **labels: str) -> float | None:
    return value(metrics, name, NOTHING, queue="images", task="images:resize", **labels)


# --- jobs -----------------------------------------------------------------------------------------------


def test_each_arrow_of_a_jobs_life_has_its_counter(metrics: ManagerMetrics):
    live(metrics)
    assert job(metrics, "svc_jobs_submitted_total") == 4
    assert job(metrics, "svc_jobs_started_total") == 4
    assert job(metrics, "svc_job_attempts_total", outcome="succeeded") == 2
    assert job(metrics, "svc_job_attempts_total", outcome="failed") == 1
    assert job(metrics, "svc_job_attempts_total", outcome="crashed") == 1
    assert job(metrics, "svc_job_attempts_total", outcome="released") == 1
    assert job(metrics, "svc_job_attempts_total", outcome="lost") == 1
    assert job(metrics, "svc_job_retries_total") == 1
    assert job(metrics, "svc_jobs_finished_total", outcome="succeeded") == 2
    assert job(metrics, "svc_jobs_finished_total", outcome="dead") == 1
    assert job(metrics, "svc_jobs_finished_total", outcome="cancelled") == 1
    assert job(metrics, "svc_jobs_requeued_total") == 1
    assert job(metrics, "svc_job_exceptions_total", exception="ValueError") == 1
    assert value(metrics, "svc_lease_expiries_total", queue="images") == 1
    assert value(metrics, "svc_stale_acks_total", queue="images") == 1
    assert value(metrics, "svc_jobs_rejected_total", queue="images", reason="queue_full") == 1


def test_a_snoozed_attempt_is_neither_a_retry_nor_an_exception(metrics: ManagerMetrics):
    metrics.failed(TERMS, Cause.SNOOZED, "Snooze", 0.5, True, 1.0)
    assert job(metrics, "svc_job_attempts_total", outcome="snoozed") == 1
    assert not job(metrics, "svc_job_retries_total")
    assert b'exception="Snooze"' not in exposition(metrics, NOTHING)


@pytest.mark.parametrize("cause", Cause)
def test_every_cause_of_failure_counts_as_exactly_one_attempt(metrics: ManagerMetrics, cause: Cause):
    metrics.failed(TERMS, cause, "E", 0.1, True, 1.0)
    samples = read(exposition(metrics, NOTHING))
    assert sum(number for (name, _), number in samples.items() if name == "svc_job_attempts_total") == 1


def test_times_land_in_their_buckets(metrics: ManagerMetrics):
    metrics.started(TERMS, 10, 0.02)
    metrics.succeeded(TERMS, [0.1, 0.3, 0.3], 2.0)
    assert job(metrics, "svc_job_queue_wait_seconds_bucket", le="0.01") == 0
    assert job(metrics, "svc_job_queue_wait_seconds_bucket", le="0.025") == 10
    assert job(metrics, "svc_job_queue_wait_seconds_sum") == pytest.approx(0.2)
    assert job(metrics, "svc_job_run_seconds_bucket", le="0.1") == 1, "a bound belongs to its bucket"
    assert job(metrics, "svc_job_run_seconds_bucket", le="0.5") == 3
    assert job(metrics, "svc_job_run_seconds_count") == 3
    assert job(metrics, "svc_job_total_seconds_sum") == pytest.approx(6.0)


def test_a_retried_attempt_is_no_finished_job(metrics: ManagerMetrics):
    metrics.failed(TERMS, Cause.FAILED, "E", 0.1, True, 5.0)
    assert job(metrics, "svc_jobs_finished_total", outcome="dead") == 0
    assert job(metrics, "svc_job_total_seconds_count") == 0


def test_the_payloads_of_a_chunk_count_at_their_mean(metrics: ManagerMetrics):
    metrics.submitted(TERMS, 10, 5000)
    assert value(metrics, "svc_job_payload_bytes_bucket", queue="images", le="256.0") == 0
    assert value(metrics, "svc_job_payload_bytes_bucket", queue="images", le="1024.0") == 10
    assert value(metrics, "svc_job_payload_bytes_sum", queue="images") == 5000


def test_the_mean_run_time_of_a_queue_is_over_all_its_tasks(metrics: ManagerMetrics):
    metrics.succeeded(Terms("m:f", "a"), [1.0, 1.0, 1.0], 1.0)
    metrics.succeeded(Terms("m:g", "a"), [5.0], 1.0)
    metrics.succeeded(Terms("m:g", "b"), [100.0], 1.0)
    metrics.started(Terms("m:g", "c"), 1, 1.0)
    assert metrics.mean_run_seconds() == {"a": 2.0, "b": 100.0}


# --- bounded labels ----------------------------------------------------------------------------------------


def test_tasks_beyond_the_bound_count_as_other_and_are_counted(metrics: ManagerMetrics):
    for number in range(LABEL_BOUNDS["task"] + 5):
        metrics.submitted(Terms(f"m:f{number}"), 1, 1)
    samples = read(exposition(metrics, NOTHING))
    tasks = {dict(labels)["task"] for name, labels in samples if name == "svc_jobs_submitted_total"}
    assert len(tasks) == LABEL_BOUNDS["task"] + 1
    assert value(metrics, "svc_jobs_submitted_total", queue="default", task=OTHER) == 5
    assert value(metrics, "svc_label_overflow_total", label="task") == 5


def test_pickled_callables_are_labelled_by_their_own_names_within_the_bound_of_tasks(metrics: ManagerMetrics):
    for number in range(LABEL_BOUNDS["task"] + 5):
        metrics.submitted(Terms(CALL, label=f"m:f{number}"), 1, 1)
    samples = read(exposition(metrics, NOTHING))
    tasks = {dict(labels)["task"] for name, labels in samples if name == "svc_jobs_submitted_total"}
    assert {"m:f0", OTHER} < tasks
    assert len(tasks) == LABEL_BOUNDS["task"] + 1


def test_exception_classes_and_methods_are_bounded_too(metrics: ManagerMetrics):
    for number in range(LABEL_BOUNDS["exception"] + 10):
        metrics.failed(TERMS, Cause.FAILED, f"Error{number}", 0.1, True, 1.0)
    for number in range(LABEL_BOUNDS["method"] + 10):
        metrics.called(f"method{number}", "ok", 0.1)
    assert job(metrics, "svc_job_exceptions_total", exception=OTHER) == 10
    assert value(metrics, "svc_manager_calls_total", method=OTHER, result="ok") == 10


def test_however_many_queues_tasks_and_exceptions_there_are_the_exposition_is_bounded(
    metrics: ManagerMetrics,
):
    for queue in range(LABEL_BOUNDS["queue"] + 20):
        for task in range(30):
            terms = Terms(f"m:f{task}", queue=f"q{queue}")
            metrics.submitted(terms, 1, 1)
            for error in range(3):
                metrics.failed(terms, Cause.FAILED, f"Error{task}{error}", 0.1, True, 1.0)

    samples = read(exposition(metrics, NOTHING))

    # Beside those that have a name: for each queue its other tasks, for each task its other exceptions.
    queues = LABEL_BOUNDS["queue"] + 1
    tasks = LABEL_BOUNDS["task"] + queues
    exceptions = LABEL_BOUNDS["exception"] + tasks
    found = Counter(name for name, _ in samples)
    assert found["svc_stale_acks_total"] <= queues
    assert found["svc_jobs_submitted_total"] <= tasks
    assert found["svc_job_exceptions_total"] <= exceptions


def test_to_tell_of_queues_without_a_name_of_their_own_again_is_no_overflow(metrics: ManagerMetrics):
    totals = Totals([QueueStats(f"q{n}", ready=1) for n in range(LABEL_BOUNDS["queue"] + 9)])
    for _ in range(3):
        exposition(metrics, totals)
    assert value(metrics, "svc_label_overflow_total", totals, label="queue") == 0


def test_what_shares_the_name_other_is_counted_in_one_place(metrics: ManagerMetrics):
    """A series is not made for each of them, only to be thrown away."""
    for number in range(LABEL_BOUNDS["queue"] + 5):
        metrics.rejected(f"q{number}", "queue_full", 1)
        metrics.stale(f"q{number}", 1)
    # `default` has a place from the start.
    assert value(metrics, "svc_jobs_rejected_total", queue=OTHER, reason="queue_full") == 6
    assert value(metrics, "svc_stale_acks_total", queue=OTHER) == 6


def test_queues_beyond_the_bound_share_one_set_of_gauges(metrics: ManagerMetrics):
    queues = [QueueStats(f"q{n}", ready=2, oldest=float(n)) for n in range(LABEL_BOUNDS["queue"] + 9)]
    totals = Totals(queues)
    exposition(metrics, totals)
    assert value(metrics, "svc_queue_jobs", totals, queue=OTHER, state="ready") == 20, (
        "10 of them: `default` has a place"
    )
    assert (
        value(metrics, "svc_queue_oldest_job_age_seconds", totals, queue=OTHER) == LABEL_BOUNDS["queue"] + 8
    )


def test_an_unknown_reason_for_a_refusal_is_other(metrics: ManagerMetrics):
    metrics.rejected("images", "because", 2)
    assert value(metrics, "svc_jobs_rejected_total", queue="images", reason=OTHER) == 2


def test_every_reason_for_a_refusal_is_the_code_of_an_error():
    codes, pending = set(), [ServiceError]
    while pending:
        kind = pending.pop()
        codes.add(kind.code)
        pending.extend(kind.__subclasses__())
    assert set(REJECTIONS) - {OTHER} <= codes


# --- gauges -------------------------------------------------------------------------------------------------


def test_gauges_are_the_queue_as_it_is_now(metrics: ManagerMetrics):
    totals = Totals(
        [QueueStats("images", 1, 2, 3, 4, oldest=9.5, oldest_running=3.5, unknown=["m:g"], unknown_tasks=1)],
        workers=2,
        consumers=8,
        busy=3,
        drain=4,
        drained_workers=["w1"],
        uptime=60.0,
        journal_bytes=4096,
    )
    for state, number in {"ready": 1, "scheduled": 2, "leased": 3, "dead": 4}.items():
        assert value(metrics, "svc_queue_jobs", totals, queue="images", state=state) == number
    assert value(metrics, "svc_queue_oldest_job_age_seconds", totals, queue="images") == 9.5
    assert value(metrics, "svc_queue_oldest_running_seconds", totals, queue="images") == 3.5
    assert value(metrics, "svc_queue_unknown_tasks", totals, queue="images") == 1
    assert value(metrics, "svc_workers", totals) == 2
    assert value(metrics, "svc_consumers", totals, state="busy") == 3
    assert value(metrics, "svc_consumers", totals, state="idle") == 5
    assert value(metrics, "svc_draining", totals) == 1
    assert value(metrics, "svc_drained_workers", totals) == 1
    assert value(metrics, "svc_manager_uptime_seconds", totals) == 60
    assert value(metrics, "svc_journal_size_bytes", totals) == 4096


def test_a_known_queue_starts_at_zero_so_that_its_first_event_is_seen(metrics: ManagerMetrics):
    assert value(metrics, "svc_queue_jobs", queue="default", state="ready") == 0
    assert value(metrics, "svc_queue_oldest_job_age_seconds", queue="default") == 0
    assert value(metrics, "svc_jobs_rejected_total", queue="default", reason="draining") == 0
    assert value(metrics, "svc_stale_acks_total", queue="default") == 0


def test_connections_are_those_that_came_less_those_that_went(metrics: ManagerMetrics):
    def come_and_go() -> None:
        for _ in range(2000):
            metrics.counted("svc_manager_connections")
            metrics.counted("svc_manager_auth_failures_total")
            metrics.counted("svc_manager_connections", by=-1)
        metrics.counted("svc_manager_connections")

    threads = [threading.Thread(target=come_and_go) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value(metrics, "svc_manager_connections") == 4
    assert value(metrics, "svc_manager_auth_failures_total") == 8000


# --- histograms ---------------------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1e5), max_size=50))
def test_observing_many_at_once_equals_observing_each(seconds: list[float]):
    together, apart = Histogram(JOB_SECONDS), Histogram(JOB_SECONDS)
    together.observe_all(seconds)
    for second in seconds:
        apart.observe(second)
    assert together.buckets() == apart.buckets()
    assert together.sum == pytest.approx(apart.sum)
    assert together.count == len(seconds)


@given(st.lists(st.floats(), min_size=1, max_size=20))
def test_no_number_from_a_consumer_can_spoil_the_sum(seconds: list[float]):
    histogram = Histogram(JOB_SECONDS)
    histogram.observe_all(seconds)
    histogram.observe(seconds[0])
    assert histogram.count == len(seconds) + 1
    assert histogram.sum >= 0
    assert not math.isnan(histogram.sum)


# --- the catalogue ------------------------------------------------------------------------------------------


def test_every_call_of_the_observer_is_counted():
    """A new arrow in the contract must not be silently ignored."""
    calls = {name for name in vars(Observer) if not name.startswith("_")}
    assert calls <= set(vars(ManagerMetrics))
