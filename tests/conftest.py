"""What every test gets."""

from __future__ import annotations

import logging

import pytest
import structlog


@pytest.fixture(autouse=True, scope="session")
def _quiet_logs():
    """Only warnings and worse reach the captured output; tests of logging configure it themselves."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
