"""structlog is loaded without rich, and nothing else is kept from rich."""

from __future__ import annotations

import subprocess
import sys

import pytest


def said_by(script):
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return ended.stdout.strip()


def test_loading_structlog_loads_no_rich_and_leaves_it_for_tasks_to_import():
    script = (
        "import sys; from svc.telemetry.loading import load_structlog; load_structlog();"
        "print('structlog' in sys.modules, 'rich' in sys.modules); import rich.console;"
        "load_structlog(); print('rich' in sys.modules)"
    )
    assert said_by(script).split() == ["True", "False", "True"]


@pytest.mark.parametrize("module", ["svc.app.preload", "svc.app.worker", "svc.app.manager"])
def test_no_process_of_a_service_loads_rich_at_its_start(module):
    script = (
        f"import sys, {module}; from svc.telemetry.loading import load_structlog; load_structlog();"
        "import svc.worker.supervisor, svc.server.manager, svc.telemetry.metrics;"
        "print('rich' in sys.modules)"
    )
    assert said_by(script) == "False"
