"""Fixtures and settings of all tests."""

from __future__ import annotations

import logging
import signal

import pytest
import structlog


def pytest_configure() -> None:
    """Let Ctrl-C be heard: a suite started in the background ignores it, and so would all that it starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _quiet_logs():
    """Only warnings and worse reach the captured output; tests of logging configure it themselves."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
