"""The functions of svc that the commands need, in one object that a test can replace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from svc.key_files import read_pickle_keys
from svc.settings import Address, ConnectionSettings, ManagerSettings, WorkerSettings

if TYPE_CHECKING:
    from svc.broker.base import Broker
    from svc.client.client import Client
    from svc.wire_tls import TlsFiles

#: Connects to a manager: its address, the authkey, the time limit of a call in seconds, the TLS files.
Connector = Callable[[Address, bytes, float, "TlsFiles | None"], "Broker"]


@dataclass(frozen=True, slots=True)
class Wiring:
    """The functions of `svc.app` that commands call."""

    connect: Connector
    run_manager: Callable[[ManagerSettings], int]
    run_worker: Callable[[WorkerSettings], int]


def wiring_of_app() -> Wiring:
    """Return the real functions; the first call of one of them imports `svc.app`."""
    return Wiring(_connect, _run_manager, _run_worker)


def open_client(
    ctx: typer.Context, settings: ConnectionSettings, timeout: float, *, pickle_key_file: Path | None = None
) -> Client:
    """Return a client of a manager whose calls take up to *timeout* seconds; it connects at the first use.

    Commands submit no pickles; a caller that needs them gives a *pickle_key_file*.

    Raises:
        AuthenticationFailed: there is no authkey, or it is not a safe one.
    """
    from svc.client.client import Client

    wiring: Wiring = ctx.obj
    connect = partial(wiring.connect, settings.manager, settings.read_authkey(), timeout, settings.tls)
    keys = read_pickle_keys(pickle_key_file) if pickle_key_file else None
    return Client(connect, patience=timeout, pickle_keys=keys)


def _connect(address: Address, authkey: bytes, timeout: float, tls: TlsFiles | None) -> Broker:
    from svc import app

    return app.connect(address, authkey, timeout=timeout, tls=tls)


def _run_manager(settings: ManagerSettings) -> int:
    from svc import app

    return app.run_manager(settings)


def _run_worker(settings: WorkerSettings) -> int:
    from svc import app

    return app.run_worker(settings)
