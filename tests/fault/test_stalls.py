"""A time in which the machine stood still is noted, and a usual one is not."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.fault.stalls import STALL_SECONDS, Stalls
from tests.support.svc import until


def test_a_look_that_comes_late_is_a_stall_and_others_are_none(tmp_path: Path):
    stalls = Stalls(tmp_path)
    stalls.look(begin := 1e9)
    stalls.faults.clear()

    for now in (begin + 0.05, begin + 0.9, begin + 1.0, begin + 3.5, begin + 3.6):
        stalls.look(now)

    assert [(fault.at, fault.until, fault.pids) for fault in stalls.faults] == [
        (begin + 1.0, begin + 3.5, None)
    ]
    assert not stalls.faults[0].injected


def test_a_disk_that_takes_nothing_for_a_while_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    begun, held = threading.Event(), threading.Event()

    def sync(_descriptor: int) -> None:
        begun.set()
        held.wait(60)

    monkeypatch.setattr(os, "fdatasync", sync)
    with Stalls(tmp_path) as stalls:
        assert begun.wait(60)
        threading.Event().wait(1.1 * STALL_SECONDS)
        held.set()
        until(lambda: stalls.faults, "the stall is noted")
