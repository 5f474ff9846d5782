"""svc: Python's own multiprocessing queue as a service.

    from svc import Client, Executor, task

The names here are loaded at their first use, so that `svc health` and every consumer start fast.
"""

from __future__ import annotations

TYPE_CHECKING = False  # True for type checkers; an import of `typing` would double the time of `svc health`
if TYPE_CHECKING:
    from typing import Any

    from svc.app import Client, Executor
    from svc.client.client import Job
    from svc.client.futures import Future
    from svc.client.specs import JobSpec, Options
    from svc.errors import (
        ArgumentError,
        AuthenticationFailed,
        BadRequest,
        BrokerError,
        CodecError,
        ConfigurationError,
        Conflict,
        Draining,
        Forbidden,
        JobCancelled,
        JobError,
        JobFailed,
        JobTooLarge,
        JournalError,
        JournalFull,
        LeaseLost,
        ManagerBroken,
        ManagerUnreachable,
        ProtocolMismatch,
        QueueFull,
        ResultTimeout,
        ServiceError,
        TaskError,
        TaskNotFound,
        UnknownJob,
        UnknownTask,
        UnknownWorker,
        UntrustedPickle,
    )
    from svc.worker.registry import task

__all__ = [
    "ArgumentError",
    "AuthenticationFailed",
    "BadRequest",
    "BrokerError",
    "Client",
    "CodecError",
    "ConfigurationError",
    "Conflict",
    "Draining",
    "Executor",
    "Forbidden",
    "Future",
    "Job",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobSpec",
    "JobTooLarge",
    "JournalError",
    "JournalFull",
    "LeaseLost",
    "ManagerBroken",
    "ManagerUnreachable",
    "Options",
    "ProtocolMismatch",
    "QueueFull",
    "ResultTimeout",
    "ServiceError",
    "TaskError",
    "TaskNotFound",
    "UnknownJob",
    "UnknownTask",
    "UnknownWorker",
    "UntrustedPickle",
    "__version__",
    "task",
]
__version__ = "0.1.0"

#: The modules of the names that are no errors.
_HOMES = {
    "Client": "svc.app",
    "Executor": "svc.app",
    "Future": "svc.client.futures",
    "Job": "svc.client.client",
    "JobSpec": "svc.client.specs",
    "Options": "svc.client.specs",
    "task": "svc.worker.registry",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name not in __all__:
        raise AttributeError(f"module 'svc' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES.get(name, "svc.errors")), name)
