"""`svc manager`: a manager that runs until it is stopped."""

from __future__ import annotations

import typer

from svc.cli.wiring import wiring_of
from svc.settings import ManagerSettings


def manager(ctx: typer.Context, settings: ManagerSettings) -> int:
    """Run the manager, until it is stopped.

    It keeps the queues and their journal, which it makes if there is none, and serves workers and clients.
    """
    return wiring_of(ctx).run_manager(settings)
