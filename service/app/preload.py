"""What a worker's forkserver imports, once for all consumers; importing this is all that it is for."""

from __future__ import annotations

import importlib

from service.telemetry.loading import load_structlog

load_structlog()
for _name in (
    "service.app.worker",
    "service.telemetry.logs",
    "service.worker.entry",
    "service.worker.nursery",
):
    importlib.import_module(_name)
