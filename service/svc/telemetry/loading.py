"""Loads the logging library without the part that svc never uses and that takes most of the time."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def load_structlog() -> None:
    """Import structlog as if rich were not installed; call it before anything else imports structlog.

    structlog imports rich for tracebacks, which `svc.telemetry.logs` prints without it. That import takes
    longer than the rest of the start of a worker or manager. Other modules can still import rich.
    """
    with _without("rich"):
        importlib.import_module("structlog")


@contextmanager
def _without(name: str) -> Iterator[None]:
    """Let imports of *name* fail while the block runs, unless it has been imported before."""
    if name in sys.modules:
        yield
        return
    modules: dict[str, Any] = sys.modules
    modules[name] = None  # the import system takes this as "there is no such module"
    try:
        yield
    finally:
        del modules[name]
