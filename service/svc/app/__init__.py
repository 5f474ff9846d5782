"""The composition root: the only place that puts concrete parts together.

Each function takes plain settings, builds the parts that it needs, runs them and returns; nothing stays
behind. Manager and worker are imported only when they are run, because a client needs neither.
"""

from __future__ import annotations

from svc.app.clients import Client, Executor, connect
from svc.settings import ManagerSettings, WorkerSettings

__all__ = ["Client", "Executor", "connect", "run_manager", "run_worker"]


def run_manager(settings: ManagerSettings) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code. See `svc.app.manager.run_manager`."""
    from svc.app import manager

    return manager.run_manager(settings)


def run_worker(settings: WorkerSettings) -> int:
    """Work until stopped or pilled; return the exit code. See `svc.app.worker.run_worker`."""
    from svc.app import worker

    return worker.run_worker(settings)
