"""svc: Python's own multiprocessing queue made into a service.

    from svc import Client, Executor, task

The names here are loaded when they are first used, so that `svc health` and every consumer start at once.
"""

from __future__ import annotations

TYPE_CHECKING = False  # to type checkers it is True; to import `typing` would double the time of `svc health`
if TYPE_CHECKING:
    from typing import Any

    from svc.app import Client, Executor
    from svc.worker.registry import task

__all__ = ["Client", "Executor", "__version__", "task"]
__version__ = "0.1.0"

_HOMES = {"Client": "svc.app", "Executor": "svc.app", "task": "svc.worker.registry"}


def __getattr__(name: str) -> Any:
    """Import a public name from where it lives."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'svc' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(home), name)
