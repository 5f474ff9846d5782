"""svc: Python's own multiprocessing queue as a service.

    from svc import Client, Executor, task

The names here are loaded at their first use, so that `svc health` and every consumer start fast.
"""

from __future__ import annotations

TYPE_CHECKING = False  # True for type checkers; an import of `typing` would double the time of `svc health`
if TYPE_CHECKING:
    from typing import Any

    from svc.app import Client, Executor
    from svc.client.futures import Future
    from svc.client.specs import JobSpec, Options
    from svc.client.submitter import Job
    from svc.domain.job_view import Progress
    from svc.errors import (
        ArgumentError,
        AuthenticationFailed,
        BadOutcomes,
        BadRequest,
        BrokerError,
        Cancelled,
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
        LargeValueLost,
        LeaseLost,
        ManagerBroken,
        ManagerUnreachable,
        OutsideJob,
        ProtocolMismatch,
        QueueFull,
        ResultTimeout,
        ServiceError,
        SoftTimeout,
        StreamRestarted,
        StreamTooLong,
        TaskError,
        TaskNotFound,
        UnknownJob,
        UnknownTask,
        UnknownWorker,
        UntrustedPickle,
    )
    from svc.large import File
    from svc.worker.attempt_ends import GiveUp, Retry, Snooze
    from svc.worker.context import CurrentJob, ListedJob, current_job
    from svc.worker.hooks import on_start, on_stop
    from svc.worker.registry import task

__all__ = [
    "ArgumentError",
    "AuthenticationFailed",
    "BadOutcomes",
    "BadRequest",
    "BrokerError",
    "Cancelled",
    "Client",
    "CodecError",
    "ConfigurationError",
    "Conflict",
    "CurrentJob",
    "Draining",
    "Executor",
    "File",
    "Forbidden",
    "Future",
    "GiveUp",
    "Job",
    "JobCancelled",
    "JobError",
    "JobFailed",
    "JobSpec",
    "JobTooLarge",
    "JournalError",
    "JournalFull",
    "LargeValueLost",
    "LeaseLost",
    "ListedJob",
    "ManagerBroken",
    "ManagerUnreachable",
    "Options",
    "OutsideJob",
    "Progress",
    "ProtocolMismatch",
    "QueueFull",
    "ResultTimeout",
    "Retry",
    "ServiceError",
    "Snooze",
    "SoftTimeout",
    "StreamRestarted",
    "StreamTooLong",
    "TaskError",
    "TaskNotFound",
    "UnknownJob",
    "UnknownTask",
    "UnknownWorker",
    "UntrustedPickle",
    "__version__",
    "current_job",
    "on_start",
    "on_stop",
    "task",
]
__version__ = "0.1.0"

#: The modules of the names that are no errors.
_HOMES = {
    "Client": "svc.app",
    "CurrentJob": "svc.worker.context",
    "Executor": "svc.app",
    "File": "svc.large",
    "Future": "svc.client.futures",
    "GiveUp": "svc.worker.attempt_ends",
    "ListedJob": "svc.worker.context",
    "Job": "svc.client.submitter",
    "JobSpec": "svc.client.specs",
    "Options": "svc.client.specs",
    "Progress": "svc.domain.job_view",
    "current_job": "svc.worker.context",
    "Retry": "svc.worker.attempt_ends",
    "Snooze": "svc.worker.attempt_ends",
    "on_start": "svc.worker.hooks",
    "on_stop": "svc.worker.hooks",
    "task": "svc.worker.registry",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name not in __all__:
        raise AttributeError(f"module 'svc' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES.get(name, "svc.errors")), name)
