"""The catalogue of log events against the source that logs them."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from svc.telemetry.events import COMMON_FIELDS, EVENTS, markdown

ROOT = Path(__file__).parents[3]
LEVEL_OF = {
    "exception": "error",
    **{level: level for level in ("debug", "info", "warning", "error", "critical")},
}
#: Logged by no call of ours: records of the `logging` module.
FOREIGN = {"log_message"}
CATALOGUE = {event.name: event for event in EVENTS}


class Call(NamedTuple):
    """One call of a logger: its place, event, level and fields."""

    place: str
    event: str | None
    level: str
    fields: set[str]


def log_calls(file: Path) -> Iterator[Call]:
    for node in ast.walk(ast.parse(file.read_text())):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        logger = ast.unparse(node.func.value)
        if node.func.attr not in LEVEL_OF or not re.search(
            r"(^|[._])log(ger(\(\))?)?(\.bind\(.*\))?$", logger
        ):
            continue
        first = node.args[0] if node.args else None
        name = first.value if isinstance(first, ast.Constant) and isinstance(first.value, str) else None
        fields = {word.arg for word in node.keywords if word.arg is not None}
        yield Call(f"{file.relative_to(ROOT)}:{node.lineno}", name, LEVEL_OF[node.func.attr], fields)


CALLS = [call for file in sorted((ROOT / "service" / "svc").rglob("*.py")) for call in log_calls(file)]


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.place)
def test_what_is_logged_is_in_the_catalogue(call: Call):
    assert call.event is not None, "the name of an event is a literal, so that it can be searched for"
    assert call.event in CATALOGUE, f"add {call.event} to events.py or worker_events.py in svc/telemetry"
    event = CATALOGUE[call.event]
    assert call.level in event.levels
    assert call.fields - {"exc_info"} - set(COMMON_FIELDS) <= set(event.fields)


def test_what_is_in_the_catalogue_is_logged():
    assert set(CATALOGUE) - {call.event for call in CALLS} == FOREIGN


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: event.name)
def test_an_event_is_told_in_one_sentence_under_a_snake_case_name(event):
    assert re.fullmatch(r"[a-z]+(_[a-z]+)+", event.name)
    assert event.meaning.endswith(".")
    assert not set(event.fields) & set(COMMON_FIELDS)


def test_the_catalogue_is_sorted_and_names_nothing_twice():
    names = [event.name for event in EVENTS]
    assert names == sorted(set(names))


def test_the_page_is_made_from_the_catalogue():
    page = (ROOT / "docs" / "events.md").read_text()
    assert page == markdown(), "run: python -m svc.telemetry.events > docs/events.md"
