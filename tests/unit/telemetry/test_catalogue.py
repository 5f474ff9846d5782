"""The catalogue of metrics keeps Prometheus' conventions, and its page is made from it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from svc.telemetry.catalogue import MANAGER_METRICS, PREFIX, WORKER_METRICS, Metric, markdown, metric

ROOT = Path(__file__).parents[3]
OURS = (*MANAGER_METRICS, *WORKER_METRICS)


@pytest.mark.parametrize("known", OURS, ids=lambda known: known.name)
def test_a_metric_is_named_as_the_conventions_ask(known: Metric):
    assert re.fullmatch(PREFIX + r"[a-z0-9_]+", known.name)
    assert known.name.endswith("_total") == (known.kind == "counter")
    assert not re.search(r"milli|micro|minutes|hours|kilo|mega|percent", known.name)
    assert known.help.endswith(".")


@pytest.mark.parametrize("known", OURS, ids=lambda known: known.name)
def test_only_histograms_have_buckets_and_theirs_ascend(known: Metric):
    assert (known.kind == "histogram") == bool(known.buckets)
    assert list(known.buckets) == sorted(set(known.buckets))


def test_metrics_of_jobs_do_not_grow_with_workers():
    assert not [known.name for known in MANAGER_METRICS if {"worker", "host", "consumer"} & set(known.labels)]


def test_a_name_is_in_the_catalogue_once():
    names = [known.name for known in OURS]
    assert len(names) == len(set(names))
    with pytest.raises(KeyError):
        metric("svc_nothing")


def test_the_page_is_made_from_the_catalogue():
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert page == markdown(), "run: python -m svc.telemetry.catalogue > docs/metrics.md"
