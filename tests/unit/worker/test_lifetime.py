"""When a worker ends by itself."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from svc.worker.lifetime import Lifetime
from tests.support.workers import options

IDLE = {"idle": 2, "busy": 0, "starting": 0}


def test_a_worker_without_limits_never_ends():
    lifetime = Lifetime(options(), 0.0)
    assert lifetime.limit(1e9, IDLE, 0.0, connected=True) == ""


def test_its_time_is_over_even_if_it_is_busy():
    lifetime = Lifetime(options(time_limit=10.0), 5.0)
    busy = {"idle": 0, "busy": 2, "starting": 0}
    assert lifetime.limit(14.9, busy, 0.0, connected=False) == ""
    assert lifetime.limit(15.0, busy, 0.0, connected=False) == "time"


@pytest.mark.parametrize(
    ("consumers", "busy_seconds", "connected"),
    [
        ({"idle": 1, "busy": 1, "starting": 0}, 0.0, True),
        ({"idle": 1, "busy": 0, "starting": 1}, 0.0, True),
        ({"idle": 0, "busy": 0, "starting": 0}, 0.0, True),
        (IDLE, 0.001, True),
        (IDLE, 0.0, False),
    ],
)
def test_work_a_start_and_an_absent_manager_begin_the_idle_time_anew(
    consumers: Mapping[str, int], busy_seconds: float, connected: bool
):
    lifetime = Lifetime(options(idle_limit=10.0), 0.0)
    assert lifetime.limit(9.0, IDLE, 0.0, connected=True) == ""
    assert lifetime.limit(12.0, consumers, busy_seconds, connected=connected) == ""
    assert lifetime.limit(21.0, IDLE, busy_seconds, connected=True) == ""
    assert lifetime.limit(22.0, IDLE, busy_seconds, connected=True) == "idle"
