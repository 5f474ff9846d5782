"""Import this in a worker's forkserver: it imports the modules that all consumers need, once."""

from __future__ import annotations

import importlib

from svc.telemetry.loading import load_structlog

load_structlog()
for _name in (
    "svc.app.worker",
    "svc.telemetry.logs",
    "svc.worker.entry",
    "svc.worker.subreaper",
):
    importlib.import_module(_name)
