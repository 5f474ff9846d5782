"""Certificates for tests of TLS."""

from __future__ import annotations

from pathlib import Path

from svc.broker.manager import ManagerBroker
from svc.wire_tls import TlsFiles

NAMES = ("localhost", "127.0.0.1")


def files(folder: Path, who: str) -> TlsFiles:
    return TlsFiles(folder / f"{who}.pem", folder / f"{who}.key", folder / "ca.pem")


def dial(manager, tls: TlsFiles | None, timeout: float = 30.0, host: str = "127.0.0.1") -> ManagerBroker:
    return ManagerBroker((host, manager.endpoint[1]), manager.authkey, timeout=timeout, tls=tls)
