"""Parts that manager and worker processes share: HTTP server, readiness, announcement, logging."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from svc.addresses import Address, ManagerAddresses
from svc.app.clients import connect
from svc.errors import ServiceError
from svc.wire_tls import TlsFiles

if TYPE_CHECKING:
    from svc.telemetry.http import HttpServer

#: Seconds that a readiness check may take, and a question to the manager's own loop.
READY_SECONDS = 2.0


@contextmanager
def serving(server: HttpServer) -> Iterator[Address]:
    """Serve HTTP while the block runs, if it is not served yet; the value is the bound address."""
    server.start()
    try:
        yield Address(*server.address)
    finally:
        server.stop()


def is_ready(address: Address | ManagerAddresses, authkey: bytes, tls: TlsFiles | None) -> tuple[bool, str]:
    """Check with a handshake and a call, as of a client: an open port alone proves nothing."""
    try:
        with connect(address, authkey, READY_SECONDS, tls=tls) as broker:
            broker.connect()
    except ServiceError as error:
        return False, str(error)
    return True, "ok"


def announce(path: Path | None, **addresses: Address | None) -> None:
    """Write the bound addresses to *path* as one JSON object, atomically."""
    if path is None:
        return
    content = json.dumps({name: str(address) for name, address in addresses.items() if address})
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    with draft.open("x", encoding="utf-8") as file:
        file.write(content)
    draft.replace(path)


def logger(name: str = "svc.manager") -> Any:
    """Return a process's log."""
    import structlog

    return structlog.get_logger(name)
