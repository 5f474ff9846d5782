"""A reporter at work, for all who test it."""

from __future__ import annotations

import pytest

from svc.worker import reporter
from tests.support.reporter_desk import Desk


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    """A reporter that renews its leases a hundred times a second."""
    monkeypatch.setattr(reporter, "_EXTEND_SECONDS", 0.01)
    return Desk()
