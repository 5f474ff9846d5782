"""The form of the dashboard: the rules of a linter of Grafana; and the file equals the builder's output."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import combinations
from typing import Any

import pytest
import yaml

from tests.support.prometheus import DASHBOARD, ROOT, panels, rows

GRAFANA = ROOT / "deploy" / "grafana"
SHOWN = [panel for panel in panels() if panel["type"] != "row"]


def ids(panel: dict[str, Any]) -> str:
    return str(panel["title"])


def test_the_committed_file_is_what_the_builder_writes():
    built = subprocess.run([sys.executable, GRAFANA / "build.py"], capture_output=True, text=True, check=True)
    assert DASHBOARD.read_text() == built.stdout, (
        "run: python deploy/grafana/build.py > deploy/grafana/dashboards/svc.json"
    )


@pytest.mark.parametrize("panel", SHOWN, ids=ids)
def test_a_panel_explains_itself(panel: dict[str, Any]):
    assert panel["title"]
    assert panel["description"].endswith(".") or "`" in panel["description"][-3:]
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]


@pytest.mark.parametrize("panel", SHOWN, ids=ids)
def test_a_panel_takes_its_source_from_the_variable(panel: dict[str, Any]):
    for part in (panel, *panel["targets"]):
        assert part["datasource"] == {"type": "prometheus", "uid": "${datasource}"}


@pytest.mark.parametrize("panel", SHOWN, ids=ids)
def test_a_rate_is_over_the_interval_that_grafana_knows(panel: dict[str, Any]):
    """A fixed window is either shorter than two scrapes or wider than the picture; hours are meant."""
    for target in panel["targets"]:
        windows = re.findall(r"\[([^\]]+)\]", target["expr"])
        assert set(windows) <= {"$__rate_interval", "1h"}


@pytest.mark.parametrize("panel", SHOWN, ids=ids)
def test_a_counter_is_never_shown_as_it_stands(panel: dict[str, Any]):
    for target in panel["targets"]:
        for name in re.findall(r"\w+_(?:total|sum|count)\b(?=[{\[)])", target["expr"]):
            assert re.search(rf"(rate|increase)\({name}", target["expr"])


@pytest.mark.parametrize("panel", SHOWN, ids=ids)
def test_quantiles_come_from_recording_rules(panel: dict[str, Any]):
    assert not [target for target in panel["targets"] if "histogram_quantile" in target["expr"]]


@pytest.mark.parametrize("panel", SHOWN, ids=ids)
def test_letters_and_legends_tell_queries_apart(panel: dict[str, Any]):
    letters = [target["refId"] for target in panel["targets"]]
    legends = [target["legendFormat"] for target in panel["targets"]]
    assert len(set(letters)) == len(letters)
    assert len(set(legends)) == len(legends)


def test_panels_have_their_own_numbers_and_places():
    numbers = [panel["id"] for panel in panels()]
    assert len(set(numbers)) == len(numbers)
    for one, other in combinations([panel["gridPos"] for panel in panels()], 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)
    assert all(panel["gridPos"]["x"] + panel["gridPos"]["w"] <= 24 for panel in panels())


def test_the_first_row_answers_whether_it_is_all_right():
    title, shown = next(iter(rows().items()))
    assert title == "Is it all right?"
    assert {panel["type"] for panel in shown} == {"stat"}
    assert sum(panel["gridPos"]["w"] for panel in shown) == 24


def test_nobody_can_change_it_in_the_browser():
    dashboard = json.loads(DASHBOARD.read_text())
    assert dashboard["editable"] is False
    assert all(variable.get("refresh", 2) == 2 for variable in dashboard["templating"]["list"])


def test_grafana_finds_the_dashboard_and_its_source():
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/svc.yaml").read_text())["providers"]
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    assert provider["allowUiUpdates"] is False
    assert provider["disableDeletion"] is True
    assert source["type"] == "prometheus"
    assert source["isDefault"] is True
    compose = yaml.safe_load((ROOT / "deploy/compose.monitoring.yaml").read_text())
    mounted = [volume.split(":")[1] for volume in compose["services"]["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounted
    assert source["url"] == "http://prometheus:9090"
