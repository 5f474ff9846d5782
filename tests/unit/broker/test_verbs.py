"""The broker's verbs are all that workers and clients use, and each verb is one that they use."""

from __future__ import annotations

import inspect
import re

import pytest

from svc.broker.base import Broker
from tests.support.svc import ROOT

USERS = ("worker", "client", "app", "cli")
SOURCE = {
    path.relative_to(ROOT): path.read_text()
    for user in USERS
    for path in sorted((ROOT / "service" / "svc" / user).rglob("*.py"))
}
VERBS = [name for name, _ in inspect.getmembers(Broker, inspect.isfunction) if not name.startswith("_")]


@pytest.mark.parametrize("path", SOURCE, ids=str)
def test_no_worker_or_client_sends_commands_past_the_verbs(path):
    assert not re.findall(r"\.call\(\[|[bB]roker\.call\(|\bline\.call\(", SOURCE[path])


@pytest.mark.parametrize("verb", sorted({*VERBS} - {"call"}))
def test_each_verb_is_used_by_a_worker_or_a_client(verb):
    assert any(re.search(rf"\.{verb}\b", text) for text in SOURCE.values())
