"""The functions of svc that the commands need, in one object that a test can replace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import typer

from svc.addresses import ManagerAddresses
from svc.key_files import read_pickle_keys
from svc.settings import ConnectionSettings, ManagerSettings, WorkerSettings

if TYPE_CHECKING:
    from svc.broker.base import Broker
    from svc.client.client import BrokerClient
    from svc.wire_tls import TlsFiles


class Connector(Protocol):
    """Connects to a manager."""

    def __call__(
        self, address: ManagerAddresses, authkey: bytes, timeout: float, *, tls: TlsFiles | None
    ) -> Broker:
        """Return a broker whose calls take up to *timeout* seconds."""


@dataclass(frozen=True, slots=True)
class Wiring:
    """The functions of `svc.app` that commands call."""

    connect: Connector
    run_manager: Callable[[ManagerSettings], int]
    run_worker: Callable[[WorkerSettings], int]


def wiring_of(ctx: typer.Context) -> Wiring:
    """Return the functions that a test has put into *ctx*, else the real ones."""
    if ctx.obj is None:
        from svc import app  # needs the client

        ctx.obj = Wiring(app.connect, app.run_manager, app.run_worker)
    wiring: Wiring = ctx.obj
    return wiring


def open_client(
    ctx: typer.Context, settings: ConnectionSettings, timeout: float, *, pickle_key_file: Path | None = None
) -> BrokerClient:
    """Return a client of a manager whose calls take up to *timeout* seconds; it connects at the first use.

    Commands submit no pickles; a caller that needs them gives a *pickle_key_file*.

    Raises:
        AuthenticationFailed: there is no authkey, or it is not a safe one.
    """
    from svc.client.client import BrokerClient

    dial = wiring_of(ctx).connect
    connect = partial(dial, settings.manager, settings.read_authkey(), timeout, tls=settings.tls)
    keys = read_pickle_keys(pickle_key_file) if pickle_key_file else None
    return BrokerClient(connect, patience=timeout, pickle_keys=keys)
