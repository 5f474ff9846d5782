"""The processors, one by one."""

from __future__ import annotations

import json
from functools import partial

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from svc.telemetry.records import (
    RECORD_BYTES_MAX,
    REDACTED,
    AddTime,
    BoundedRenderer,
    DropRepeats,
    add_fields,
    redact,
    to_json,
)


class Clock:
    """Time that stands still until it is set."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def admitted(drop: DropRepeats, kind: str) -> int | None:
    """Return how many were held back before a record of that kind; None if it is held back itself."""
    try:
        return int(drop(None, "", {"event": kind}).get("suppressed", 0))
    except structlog.DropEvent:
        return None


def test_the_first_of_a_kind_passes_and_the_next_waits_its_time():
    clock = Clock()
    drop = DropRepeats(["lost"], clock)
    assert admitted(drop, "lost") == 0
    assert admitted(drop, "lost") is None
    assert admitted(drop, "lost") is None
    clock.now += 29.9
    assert admitted(drop, "lost") is None
    clock.now += 0.1
    assert admitted(drop, "lost") == 3
    clock.now += 30
    assert admitted(drop, "lost") == 0


def test_one_kind_does_not_silence_another():
    drop = DropRepeats(["lost", "found"], Clock())
    assert admitted(drop, "lost") == 0
    assert admitted(drop, "found") == 0


def test_a_repeating_event_that_passes_tells_how_many_were_held_back():
    clock = Clock()
    drop = DropRepeats(["lost"], clock)
    assert drop(None, "", {"event": "lost"}) == {"event": "lost"}
    with pytest.raises(structlog.DropEvent):
        drop(None, "", {"event": "lost"})
    clock.now += 31
    assert drop(None, "", {"event": "lost"}) == {"event": "lost", "suppressed": 1}
    assert drop(None, "", {"event": "other"}) == {"event": "other"}


@pytest.mark.parametrize(
    "name", ["authkey", "token", "secret", "password", "AuthKey", "api_token", "db_password"]
)
def test_a_secret_is_not_shown_under_its_name(name: str):
    assert redact(None, "", {"event": "e", name: b"hunter2"})[name] == REDACTED
    assert redact(None, "", {"event": "e", "settings": {name: "hunter2"}})["settings"] == {name: REDACTED}


def test_what_only_resembles_a_secret_stays():
    record = {"event": "e", "authkey_file": "/run/secrets/svc_authkey", "token": 4711, "tokens": "a b"}
    assert redact(None, "", dict(record)) == record


def test_the_time_is_told_to_the_microsecond_also_if_the_second_has_changed():
    times = [
        1_795_952_553_000_007_999,
        1_795_952_553_999_999_999,
        1_795_952_554_000_000_000,
        1_795_952_553_000_000_000,
    ]
    add = AddTime(iter(times).__next__)
    assert [add(None, "", {})["timestamp"] for _ in times] == [
        "2026-11-29T11:42:33.000007Z",
        "2026-11-29T11:42:33.999999Z",
        "2026-11-29T11:42:34.000000Z",
        "2026-11-29T11:42:33.000000Z",
    ]


def test_a_secret_in_a_mapping_is_not_shown_whatever_the_other_fields_are():
    record = {"event": "e", "one": {"password": "x", "other": 1}, "token": 7}
    assert redact(None, "", record) == {"event": "e", "one": {"password": REDACTED, "other": 1}, "token": 7}


def test_a_field_of_the_record_wins_over_the_process_wide_one():
    add = partial(add_fields, {"worker": "w1"})
    assert add(None, "", {"event": "e"}) == {"event": "e", "worker": "w1"}
    assert add(None, "", {"event": "e", "worker": "w2"})["worker"] == "w2"


def test_the_longest_field_is_cut_and_the_others_stay_whole():
    record = {"event": "attempt_finished", "job_id": "o-1", "traceback": "x" * 100_000, "message": "y" * 300}
    text = BoundedRenderer(to_json)(None, "", record)
    shown = json.loads(text)
    assert RECORD_BYTES_MAX - 200 < len(text.encode()) < RECORD_BYTES_MAX
    assert shown["message"] == "y" * 300
    cut, _, missing = shown["traceback"].partition("…[+")
    assert len(cut) + int(missing.rstrip("]")) == 100_000


def test_a_record_that_fits_is_left_alone():
    record = {"event": "e", "text": "ä" * 100}
    assert json.loads(BoundedRenderer(to_json)(None, "", record)) == record


class Broken:
    """Its repr fails."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


@pytest.mark.parametrize(
    "value", [Broken(), object(), float("nan"), {1: {2}}, "\ud800", b"\xff", 2**100, [Broken()]]
)
def test_whatever_is_logged_comes_out_as_json(value: object):
    text = BoundedRenderer(to_json)(None, "", {"event": "e", "value": value})
    assert json.loads(text)["event"] == "e"


def test_what_refers_to_itself_comes_out_as_json():
    loop: list[object] = []
    loop.append(loop)
    assert json.loads(to_json(None, "", {"event": "e", "value": loop}))["event"] == "e"


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner),
    max_leaves=5,
)


@given(
    st.dictionaries(st.text(max_size=20), values, max_size=5),
    st.text(max_size=9000),
    st.sampled_from([0, 1, 500]),
)
def test_every_record_is_one_bounded_line_of_json(fields: dict[str, object], text: str, many: int):
    record = {"event": "e", **{f"f{n}": n for n in range(many)}, **fields, "text": text}
    line = BoundedRenderer(to_json)(None, "", record)
    assert "\n" not in line
    assert len(line.encode()) < RECORD_BYTES_MAX
    json.loads(line)
