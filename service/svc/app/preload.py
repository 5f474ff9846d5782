"""What a worker's forkserver imports, once for all consumers; importing this is all that it is for."""

from __future__ import annotations

import importlib

from svc.telemetry.loading import load_structlog

load_structlog()
for _name in (
    "svc.app.worker",
    "svc.telemetry.logs",
    "svc.worker.entry",
    "svc.worker.nursery",
):
    importlib.import_module(_name)
