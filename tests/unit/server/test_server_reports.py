"""The risks that NATS servers tell of, by made-up answers of three servers."""

from __future__ import annotations

from typing import Any

import pytest

from svc.server.journal.jetstream.server_reports import risks_of, untold


def report(name: str, release: str = "2.14.5", **data: Any) -> dict[str, Any]:
    return {"server": {"name": name, "ver": release}, "data": data or {"config": {"sync_always": True}}}


LATE_SYNC: dict[str, Any] = {"config": {"max_storage": 100}}
OFF: dict[str, Any] = {"disabled": True, "config": {}}


def test_each_server_that_does_not_sync_or_is_too_old_is_a_risk():
    reports = [report("n0"), report("n1", **LATE_SYNC), report("n2", "2.10.29")]

    first, second = risks_of(reports)

    assert "n1 does not sync each write: set `sync_interval: always`" in first
    assert "n2 is of release 2.10.29, which may lose writes; 2.14.5 is the first to use" in second


@pytest.mark.parametrize(
    "harmless",
    [report("n0"), report("n0", "2.10.0", **OFF), {"server": {"name": "n0"}, "error": {"code": 503}}, {}],
    ids=["sound", "without-jetstream", "refused", "empty"],
)
def test_a_server_that_keeps_nothing_or_tells_nothing_is_no_risk(harmless: dict[str, Any]):
    assert list(risks_of([harmless])) == []


def test_servers_that_have_told_nothing_are_named_by_their_number():
    assert "servers do not tell whether they sync" in untold([], 3)
    assert "servers do not tell whether they sync" in untold([{}, report("n1", **OFF)], 3)
    assert untold([report("n0"), {}, report("n2", **OFF)], 3).startswith("1 of 3 NATS servers have told")
    assert untold([report("n0"), report("n1", **LATE_SYNC), report("n2")], 3) == ""
    assert untold([report("n0")], 1) == ""
