"""Loads the logging library without the part that svc never uses and that takes most of the time."""

from __future__ import annotations

import importlib
import sys
from typing import Any


def load_structlog() -> None:
    """Import structlog as if rich were not installed; call it before anything else imports structlog.

    structlog imports rich for tracebacks, which `svc.telemetry.logs` prints without it. That import takes
    longer than the rest of the start of a worker or manager. Other modules can still import rich.
    """
    modules: dict[str, Any] = sys.modules
    if "rich" in modules or "structlog" in modules:
        return
    modules["rich"] = None  # the import system takes this as "there is no such module"
    try:
        importlib.import_module("structlog")
    finally:
        del modules["rich"]
