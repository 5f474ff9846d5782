"""The rules of Prometheus against the catalogue of metrics, and a runbook for each alert."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from svc.cli.verbs import AUTH, JOBS, PROGRAM
from svc.telemetry import catalogue
from tests.support.prometheus import ROOT, RULES, filled_in, grouped_by, panels, selectors

RUNBOOKS = ROOT / "docs" / "runbooks"
HEADINGS = ["Meaning", "Impact", "First look", "Causes and remedies", "Silence"]

#: Labels that Prometheus adds to scraped series, and those of our service discovery.
TARGET_LABELS = {"job", "instance", "worker", "host", "version"}
#: Series that Prometheus makes itself, with their labels.
BUILT_IN: dict[str, set[str]] = {
    "up": TARGET_LABELS,
    "scrape_duration_seconds": TARGET_LABELS,
    "ALERTS": {"alertname", "alertstate", "severity"},
}


def rules() -> list[dict[str, Any]]:
    return [
        rule
        for file in sorted((RULES / "rules").glob("*.yml"))
        for group in yaml.safe_load(file.read_text())["groups"]
        for rule in group["rules"]
    ]


RECORDED = {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}
ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
CASES = yaml.safe_load((RULES / "tests" / "alerts.yml").read_text())["tests"]


def series_of(metric: catalogue.Metric) -> list[str]:
    """Return the names of a metric's samples."""
    suffixes = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
    return [metric.name + suffix for suffix in suffixes]


def series() -> dict[str, set[str]]:
    """Return every series that may be read, with its labels."""
    known = dict(BUILT_IN)
    for metric in (*catalogue.MANAGER_METRICS, *catalogue.WORKER_METRICS, *catalogue.STANDARD_METRICS):
        for name in series_of(metric):
            known[name] = {*metric.labels, *TARGET_LABELS, *(["le"] if name.endswith("_bucket") else [])}
    for name, expr in RECORDED.items():
        known[name] = set().union(*(known[read] for read, _, _ in selectors(expr)))
    return known


EXPRESSIONS = {
    **RECORDED,
    **{name: rule["expr"] for name, rule in ALERTS.items()},
    **{
        f"{panel['title']}: {target['expr']}": filled_in(target["expr"])
        for panel in panels()
        for target in panel.get("targets", [])
    },
}


@pytest.mark.parametrize("expr", EXPRESSIONS.values(), ids=list(EXPRESSIONS))
def test_a_rule_or_panel_reads_only_what_the_catalogue_has(expr: str):
    known = series()
    read = selectors(expr)
    assert read
    for name, label, _ in read:
        assert name in known, f"{name} is not in service/svc/telemetry/catalogue.py"
        assert not label or label in known[name], f"{name} has no label {label}"
    assert grouped_by(expr) <= set().union(*(known[name] for name, _, _ in read))


VALUES = {
    (metric.name, label): values
    for metric in (*catalogue.MANAGER_METRICS, *catalogue.WORKER_METRICS)
    for label, values in metric.values.items()
}


@pytest.mark.parametrize("expr", EXPRESSIONS.values(), ids=list(EXPRESSIONS))
def test_a_rule_or_panel_asks_only_for_values_that_a_label_can_have(expr: str):
    """A misspelt value gives no error, only silence."""
    for name, label, value in selectors(expr):
        if (name, label) in VALUES:
            assert set(value.split("|")) <= set(VALUES[name, label])


def test_every_recorded_series_is_read_by_an_alert_or_a_panel():
    read = {name for expr in EXPRESSIONS.values() for name, _, _ in selectors(expr)}
    assert set(RECORDED) <= read


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_series_is_named_level_metric_operation(name: str):
    assert re.fullmatch(r"[a-z_]+:svc_[a-z_]+:[a-z0-9_]+", name)


@pytest.mark.parametrize("rule", ALERTS.values(), ids=list(ALERTS))
def test_an_alert_says_what_how_bad_and_where_to_read_on(rule: dict[str, Any]):
    assert re.fullmatch(r"Svc[A-Z][A-Za-z]+", rule["alert"])
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["summary"].endswith(".")
    assert rule["annotations"]["description"].strip().endswith(".")
    assert rule["annotations"]["runbook_url"] == f"docs/runbooks/{rule['alert']}.md"


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_a_case_in_which_it_fires_and_one_in_which_it_must_not(name: str):
    checks = [check for case in CASES for check in case["alert_rule_test"] if check["alertname"] == name]
    fired = [check for check in checks if check["exp_alerts"]]
    assert fired
    quiet = [check for check in checks if not check["exp_alerts"]]
    # In a case that names several series, those that are not expected to fire are the other half.
    other = [
        case
        for case in CASES
        for check in case["alert_rule_test"]
        if check["alertname"] == name and 0 < len(check["exp_alerts"]) < len(case["input_series"])
    ]
    assert quiet or other


@pytest.mark.parametrize("name", ALERTS)
def test_an_alert_has_a_runbook_in_the_same_order_as_all(name: str):
    text = (RUNBOOKS / f"{name}.md").read_text()
    assert text.startswith(f"# {name}\n")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == HEADINGS
    assert all(len(line) <= 110 for line in text.splitlines())


def test_no_runbook_is_left_over():
    assert {file.stem for file in RUNBOOKS.glob("*.md")} == set(ALERTS)


@pytest.mark.parametrize("name", ALERTS)
def test_the_commands_of_a_runbook_exist(name: str):
    text = (RUNBOOKS / f"{name}.md").read_text()
    commands = re.findall(r"(?:^|`)svc ([a-z]+)(?: ([a-z]+))?", text, re.MULTILINE)
    assert commands, "the first look begins with a command of ours"
    groups = {"jobs": JOBS.verbs, "auth": AUTH.verbs}
    for verb, second in commands:
        assert verb in PROGRAM.verbs
        assert verb not in groups or second in groups[verb]


@pytest.mark.parametrize("name", ALERTS)
def test_the_events_and_metrics_that_a_runbook_names_exist(name: str):
    from svc.telemetry.events import EVENTS

    events = {event.name for event in EVENTS}
    text = (RUNBOOKS / f"{name}.md").read_text()
    for word in re.findall(r"`([a-z]+(?:_[a-z]+)+)`", text):
        known = (
            word in events
            or word in series()
            or word in ("stop_grace_period", "desired_consumers", "timed_out")
        )
        assert known, word
