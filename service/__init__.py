"""svc: Python's own multiprocessing queue made into a service.

    from service import Client, Executor, task

The names here are loaded when they are first used, so that `svc health` and every consumer start at once.
"""

from __future__ import annotations

TYPE_CHECKING = False  # to type checkers it is True; to import `typing` would double the time of `svc health`
if TYPE_CHECKING:
    from typing import Any

    from service.app import Client, Executor
    from service.worker.registry import task

__all__ = ["Client", "Executor", "__version__", "task"]
__version__ = "0.1.0"

_HOMES = {"Client": "service.app", "Executor": "service.app", "task": "service.worker.registry"}


def __getattr__(name: str) -> Any:
    """Import a public name from where it lives."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'service' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(home), name)
