"""The metrics of a manager that has done nothing yet."""

from __future__ import annotations

import pytest

from svc.telemetry.metrics import Build, ManagerMetrics


@pytest.fixture
def metrics() -> ManagerMetrics:
    return ManagerMetrics(Build("0.1.0", "3.54.1"))
