"""How the logging library is loaded: without the part that svc never uses and that takes most of the time."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


def load_structlog() -> None:
    """Import structlog as if rich were not installed; call it before anything else imports structlog.

    structlog imports rich for tracebacks that `svc.telemetry.logs` prints plainly, and that import takes
    longer than all the rest of a worker's or manager's start. Nothing else is kept from importing it.
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
    modules[name] = None  # what the import system takes for "there is no such module"
    try:
        yield
    finally:
        del modules[name]
