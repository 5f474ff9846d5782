"""When a consumer counts as worn."""

from __future__ import annotations

import mmap

from svc.worker.wear import Wear


def test_a_limit_on_jobs_is_told_once():
    told: list[str] = []
    wear = Wear(10, 0, told.append)
    for jobs in (4, 5, 1, 100):
        wear.add(jobs)
    assert told == ["jobs"]


def test_memory_is_measured_between_jobs_and_told_once():
    told: list[str] = []
    now = [0.0]
    wear = Wear(0, 8 << 20, told.append, lambda: now[0])
    wear.add(1)
    kept = mmap.mmap(-1, 32 << 20)  # a heap that others have left may have room for bytes
    kept.write(b"x" * (32 << 20))
    wear.add(1)  # it was measured a moment ago
    assert told == []
    now[0] = 1.0
    wear.add(1)
    wear.add(1)
    assert told == ["rss"]
    kept.close()
