"""The metrics of a manager, written and read as a scraper reads them."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from svc.domain.job import Cause, Terms
from svc.domain.replies import QueueStats, Totals
from svc.telemetry.metrics import ManagerMetrics

TERMS = Terms("images:resize", queue="images")


NOTHING = Totals([])


def exposition(metrics: ManagerMetrics, totals: Totals = NOTHING) -> bytes:
    return "".join(metrics.collect(totals)).encode()


def read(exposition: bytes) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(exposition.decode())
        for sample in family.samples
    }


def live(metrics: ManagerMetrics) -> bytes:
    """Report each kind of event once, and return the exposition."""
    metrics.submitted(TERMS, 4, 400)
    metrics.rejected("images", "queue_full", 1)
    metrics.started(TERMS, 4, 0.02)
    metrics.succeeded(TERMS, [0.1, 0.2], 1.0)
    metrics.failed(TERMS, Cause.FAILED, "ValueError", 0.3, True, 1.0)
    metrics.failed(TERMS, Cause.CRASHED, "Killed", 0.3, False, 1.0)
    metrics.released(TERMS, 1)
    metrics.expired(TERMS, 1)
    metrics.cancelled(TERMS, 1)
    metrics.requeued(TERMS, 1)
    metrics.purged(TERMS, 1)
    metrics.stale("images", 1)
    metrics.committed(12, 0.002)
    metrics.turned(0.003)
    metrics.turned(0.002)
    metrics.called("lease", "ok", 0.001)
    metrics.counted("svc_manager_connections")
    metrics.counted("svc_manager_auth_failures_total")
    metrics.measured("svc_journal_recovered_jobs", 7)
    return exposition(metrics, Totals([QueueStats("images", 1, 2, 3, 4, oldest=9.0)], workers=1, consumers=4))


def value(metrics: ManagerMetrics, name: str, totals: Totals = NOTHING, **labels: str) -> float | None:
    return read(exposition(metrics, totals)).get((name, frozenset(labels.items())))
