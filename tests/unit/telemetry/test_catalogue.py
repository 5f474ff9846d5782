"""The catalogue of metrics keeps Prometheus' conventions, and its page is made from it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from svc.telemetry.catalogue import MANAGER_METRICS, PREFIX, WORKER_METRICS, Metric, markdown
from svc.telemetry.label_values import LABEL_BOUNDS

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


@pytest.mark.parametrize("known", OURS, ids=lambda known: known.name)
def test_a_label_has_a_closed_set_of_values_or_a_bound_or_one_value_in_a_process(known: Metric):
    one_value = {"worker", "host", "version", "python", "sqlite", "engine", "start_method", "source"}
    of_one_series = {"part", "role"} if known.name == "svc_manager_longest_turn_processor_seconds" else set()
    assert set(known.labels) <= known.values.keys() | LABEL_BOUNDS.keys() | one_value | of_one_series
    assert tuple(known.values) == known.labels[len(known.labels) - len(known.values) :]


def references(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield the metrics that a file counts or sets by name, each with the number of its labels.

    A name may be a constant of the module.
    """
    names = {
        ast.unparse(node.targets[0]): node.value.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        if node.func.attr in ("counted", "measured"):
            first = node.args[0]
            name = first.value if isinstance(first, ast.Constant) else names[ast.unparse(first)]
            yield str(name), len(node.args) - (1 if node.func.attr == "counted" else 2)


REFERENCES = [
    (str(file.relative_to(ROOT)), name, labels)
    for file in sorted((ROOT / "service" / "svc").rglob("*.py"))
    for name, labels in references(ast.parse(file.read_text()))
]


@pytest.mark.parametrize(("file", "name", "labels"), REFERENCES)
def test_a_metric_that_is_counted_by_name_is_in_the_catalogue_with_these_labels(
    file: str, name: str, labels: int
):
    known = {metric.name: metric for metric in MANAGER_METRICS}
    assert name in known, f"{file}: add {name} to service/svc/telemetry/catalogue.py"
    assert labels == len(known[name].labels)
    assert known[name].kind != "histogram"


def test_each_metric_is_counted_somewhere():
    files = (ROOT / "service" / "svc").rglob("*.py")
    source = "".join(file.read_text() for file in files if file.name != "catalogue.py")
    assert not [known.name for known in OURS if f'"{known.name}"' not in source]


def test_the_page_is_made_from_the_catalogue():
    page = (ROOT / "docs" / "metrics.md").read_text()
    assert page == markdown(), "run: python -m svc.telemetry.catalogue > docs/metrics.md"
