"""Panels as values, and the JSON that Grafana reads."""  # noqa: INP001  # build.py beside it is a script

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

#: Grafana's name for a unit: seconds, bytes, a share of 1, a number, per second.
Unit = Literal["s", "bytes", "percentunit", "short", "ops"]

_COLUMNS = 24
_SOURCE = {"type": "prometheus", "uid": "${datasource}"}


@dataclass(frozen=True, slots=True)
class Panel:
    """What all panels have.

    Attributes:
        title: a few words.
        description: what it tells; shown at the small i.
        unit: of all its values.
        queries: what its lines or columns are called, and the PromQL expression of each.
        levels: (from this value on, colour), the first from the lowest value on.
        words: what single values are called.
        width: columns of 24.
        signed: whether values below zero make sense.
    """

    title: str
    description: str
    unit: Unit
    queries: Mapping[str, str]
    levels: tuple[tuple[float | None, str], ...] = ((None, "green"),)
    words: tuple[tuple[int, str], ...] = ()
    width: int = 8
    signed: bool = False


@dataclass(frozen=True, slots=True)
class Stat(Panel):
    """One number."""

    width: int = 3


@dataclass(frozen=True, slots=True)
class Graph(Panel):
    """Lines over time; stacked where they are parts of a whole."""

    stacked: bool = False


@dataclass(frozen=True, slots=True)
class Table(Panel):
    """One line for each value of the label `key`, one column for each query, named as the query is."""

    key: str = ""
    width: int = 24


@dataclass(frozen=True, slots=True)
class Row:
    """A titled row of panels."""

    title: str
    panels: tuple[Panel, ...]


def dashboard(rows: Iterable[Row]) -> dict[str, Any]:
    """Return the dashboard of *rows* as Grafana reads it."""
    return {
        "uid": "svc",
        "title": "svc",
        "description": "Is the queue all right? From the first row down: what is felt, then why.",
        "tags": ["svc"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "annotations": {"list": [_annotation()]},
        "templating": {"list": list(_variables())},
        "links": [],
        "panels": list(_placed(rows)),
    }


def _annotation() -> dict[str, Any]:
    return {
        "name": "Drains",
        "datasource": _SOURCE,
        "enable": True,
        "expr": "svc_draining == 1",
        "iconColor": "orange",
        "titleFormat": "drain in force",
    }


def _variables() -> Iterator[dict[str, Any]]:
    yield {"name": "datasource", "label": "Source", "type": "datasource", "query": "prometheus"}
    for name, metric in (("queue", "svc_queue_jobs"), ("task", "svc_jobs_submitted_total")):
        yield {
            "name": name,
            "label": name.capitalize(),
            "type": "query",
            "datasource": _SOURCE,
            "query": {"query": f"label_values({metric}, {name})", "refId": name},
            "refresh": 2,
            "sort": 1,
            "multi": True,
            "includeAll": True,
            "allValue": ".*",
            "current": {"text": "All", "value": "$__all"},
        }


def _placed(rows: Iterable[Row]) -> Iterator[dict[str, Any]]:
    """Yield the panels with their places: rows from top to bottom, panels from left to right, wrapping."""
    top, number = 0, 1
    for row in rows:
        yield _placed_row(row.title, number, top)
        top, left, height = top + 1, 0, 0
        for place, panel in enumerate(row.panels, number + 1):
            if left + panel.width > _COLUMNS:
                top, left = top + height, 0
            height = 4 if isinstance(panel, Stat) else 8
            grid = {"x": left, "y": top, "w": panel.width, "h": height}
            yield {"id": place, "gridPos": grid, **_panel(panel)}
            left += panel.width
        top, number = top + height, number + 1 + len(row.panels)


def _placed_row(title: str, number: int, top: int) -> dict[str, Any]:
    grid = {"x": 0, "y": top, "w": _COLUMNS, "h": 1}
    return {"id": number, "gridPos": grid, "type": "row", "title": title, "collapsed": False, "panels": []}


def _panel(panel: Panel) -> dict[str, Any]:
    common = {
        "title": panel.title,
        "description": panel.description,
        "datasource": _SOURCE,
        "targets": [_target(panel, query, place) for place, query in enumerate(panel.queries.items())],
    }
    match panel:
        case Stat():
            return common | _stat(panel)
        case Graph():
            return common | _graph(panel)
        case Table():
            return common | _table(panel)
    raise TypeError(f"no such panel: {panel}")


def _target(panel: Panel, query: tuple[str, str], place: int) -> dict[str, Any]:
    legend, expr = query
    now_only = not isinstance(panel, Graph)
    return {
        "refId": chr(ord("A") + place),
        "datasource": _SOURCE,
        "expr": expr,
        "legendFormat": legend or "__auto",
        "instant": now_only,
        "range": not now_only,
        "format": "table" if isinstance(panel, Table) else "time_series",
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    steps = [{"value": value, "color": color} for value, color in panel.levels]
    words = {str(value): {"text": text, "index": place} for place, (value, text) in enumerate(panel.words)}
    return {
        "unit": panel.unit,
        "min": None if panel.signed else 0,
        "thresholds": {"mode": "absolute", "steps": steps},
        "mappings": [{"type": "value", "options": words}] if words else [],
    }


def _stat(panel: Stat) -> dict[str, Any]:
    return {
        "type": "stat",
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": {
            "colorMode": "background",
            "graphMode": "none",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        },
    }


def _graph(panel: Graph) -> dict[str, Any]:
    custom = {
        "lineWidth": 1,
        "fillOpacity": 25 if panel.stacked else 5,
        "showPoints": "never",
        "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        "thresholdsStyle": {"mode": "line" if len(panel.levels) > 1 else "off"},
    }
    return {
        "type": "timeseries",
        "fieldConfig": {"defaults": {**_defaults(panel), "custom": custom}, "overrides": []},
        "options": {
            "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
            "tooltip": {"mode": "multi", "sort": "desc"},
        },
    }


def _table(panel: Table) -> dict[str, Any]:
    """Join the queries on the key; the columns that are only labels of Prometheus are left out."""
    letters = [chr(ord("A") + place) for place in range(len(panel.queries))]
    names = {f"Value #{letter}": name for letter, name in zip(letters, panel.queries, strict=True)}
    # The first query is there for its labels; its value is always 1.
    del names["Value #A"]
    hidden = [
        *(f"Time {place}" for place in range(1, len(letters) + 1)),
        "Time",
        "__name__",
        "job",
        "Value #A",
    ]
    return {
        "type": "table",
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": {"showHeader": True},
        "transformations": [
            {"id": "joinByField", "options": {"byField": panel.key, "mode": "outer"}},
            {
                "id": "organize",
                "options": {"excludeByName": dict.fromkeys(hidden, True), "renameByName": names},
            },
        ],
    }
