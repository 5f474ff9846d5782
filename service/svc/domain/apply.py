"""The single entry point of the queue; to import it registers the handlers of all commands."""

from __future__ import annotations

from svc.domain import (
    admission,
    feeds,
    membership,
    operations,
    outcomes,
    pieces,
    progress,
    purge,
    queries,
    settlement,
    streams,
)
from svc.domain.handlers import HANDLERS, READERS, apply, charge
from svc.domain.scheduling import grants

__all__ = ["HANDLERS", "HANDLER_MODULES", "READERS", "apply", "charge"]

#: The modules that have handlers; to import them fills the tables.
HANDLER_MODULES = (
    admission,
    feeds,
    grants,
    membership,
    operations,
    outcomes,
    pieces,
    progress,
    purge,
    queries,
    settlement,
    streams,
)
