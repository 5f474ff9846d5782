"""The text of the metrics: its format, its families and the catalogue."""

from __future__ import annotations

import re
import threading

import pytest
from prometheus_client import generate_latest
from prometheus_client.core import Metric as Family
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.utils import floatToGoString

from svc.domain.job import Cause, Terms
from svc.telemetry.catalogue import (
    MANAGER_METRICS,
    STANDARD_METRICS,
    WORKER_METRICS,
    Metric,
)
from svc.telemetry.metrics import ManagerMetrics
from svc.telemetry.worker_metrics import WorkerSnapshot, worker_exposition
from tests.support.exposition import NOTHING, exposition, live, read, value


@pytest.mark.parametrize("name", ['with "quotes"', "with\nnewline", "with\\backslash", "mit Umlaut ä", ""])
def test_any_name_survives_the_text_format(metrics: ManagerMetrics, name: str):
    metrics.submitted(Terms(name, queue=name), 1, 1)
    assert value(metrics, "svc_jobs_submitted_total", queue=name, task=name) == 1


def test_a_scrape_while_the_manager_counts_sees_buckets_that_add_up(metrics: ManagerMetrics):
    stop = threading.Event()

    def count() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            terms = Terms(f"m:f{number % 20}", queue=f"q{number % 7}")
            metrics.submitted(terms, 1, 1)
            metrics.failed(terms, Cause.FAILED, f"E{number % 70}", number % 5, False, 1.0)
            metrics.called(f"m{number % 70}", "ok", 0.1)

    thread = threading.Thread(target=count)
    thread.start()
    try:
        scrapes = [exposition(metrics, NOTHING) for _ in range(5)]
    finally:
        stop.set()
        thread.join()
    for samples in map(read, scrapes):
        for (name, labels), number in samples.items():
            if name == "svc_job_run_seconds_count":
                assert samples["svc_job_run_seconds_bucket", labels | {("le", "+Inf")}] == number


def test_the_text_is_what_the_client_library_would_write(metrics: ManagerMetrics):
    """The renderer is our own, for speed; the library is the oracle."""
    metrics.submitted(Terms('a "b"\n\\c'), 1, 10**9)
    text = live(metrics)
    families = list(text_string_to_metric_families(text.decode()))

    class Source:
        def collect(self) -> list[Family]:
            return families

    ours, theirs = text.decode().splitlines(), generate_latest(Source()).decode().splitlines()
    assert list(map(_as_the_library, ours)) == theirs


def _as_the_library(line: str) -> str:
    """Return a line of ours as the library writes it: labels in order, and whole numbers with a fraction."""
    if line.startswith("#"):
        return line
    series, _, number = line.rpartition(" ")
    name, opening, labels = series.partition("{")
    ordered = ",".join(sorted(re.findall(r'\w+="(?:[^"\\]|\\.)*"', labels)))
    return f"{name}{opening}{ordered}{'}' if opening else ''} {floatToGoString(number)}"


def families(exposition: bytes) -> dict[str, tuple[str, set[tuple[str, ...]]]]:
    found = {}
    for family in text_string_to_metric_families(exposition.decode()):
        name = family.name + ("_total" if family.type == "counter" else "")
        labels = {tuple(sorted(set(sample.labels) - {"le"})) for sample in family.samples}
        found[name] = (family.type, labels)
    return found


def assert_catalogued(exposition: bytes, catalogue: tuple[Metric, ...], optional: set[str]) -> None:
    found = families(exposition)
    known = {metric.name: metric for metric in (*catalogue, *STANDARD_METRICS)}
    assert set(found) <= set(known)
    assert set(known) - set(found) <= optional
    for name, (kind, labels) in found.items():
        assert kind == known[name].kind, name
        assert labels == {tuple(sorted(known[name].labels))}, name


def test_a_manager_exports_the_catalogue_and_nothing_else(metrics: ManagerMetrics):
    assert_catalogued(live(metrics), MANAGER_METRICS, set())


def test_a_worker_exports_the_catalogue_and_nothing_else():
    maybe = {"svc_worker_memory_bytes", "svc_worker_memory_limit_bytes", "svc_worker_round_trip_seconds"}
    assert_catalogued(worker_exposition(WorkerSnapshot("w1", "h1", cpu_source="host")), WORKER_METRICS, maybe)


def test_no_series_is_given_twice_and_none_tells_when_it_was_created(metrics: ManagerMetrics):
    lines = [
        line.rsplit(" ", 1)[0] for line in live(metrics).decode().splitlines() if not line.startswith("#")
    ]
    assert len(lines) == len(set(lines))
    assert not [line for line in lines if "_created" in line]
