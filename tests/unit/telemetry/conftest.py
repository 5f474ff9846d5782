"""The metrics of a manager that has done nothing yet."""

from __future__ import annotations

import pytest

from svc.telemetry.metrics import ManagerMetrics


@pytest.fixture
def metrics() -> ManagerMetrics:
    return ManagerMetrics("0.1.0", "3.54.1")
