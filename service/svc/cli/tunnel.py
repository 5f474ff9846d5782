"""`svc tunnel`: a local relay over TLS for plain BaseManager clients."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import signal
from typing import TYPE_CHECKING

from svc.cli.output import tell
from svc.errors import ConfigurationError
from svc.settings import Address, TunnelSettings

if TYPE_CHECKING:
    from svc.client.tunnel import Tunnel


def tunnel(settings: TunnelSettings) -> int:
    """Let plain clients on this host reach a manager that asks for TLS.

    A client connects to --listen with its authkey as if the manager were there. Whoever can reach that
    port uses this host's certificate, but still needs an authkey.
    """
    from svc.client.tunnel import Tunnel

    files = settings.tls
    if files is None:
        raise ConfigurationError("a tunnel needs --tls-cert, --tls-key and --tls-ca")
    at = settings.listen
    if not _is_loopback(at.host):
        raise ConfigurationError(
            f"--listen {at} is not a loopback address; what arrives there is not encrypted"
        )

    def ready(bound: Address) -> None:
        if settings.announce is not None:
            settings.announce.write_text(json.dumps({"listen": str(bound)}), encoding="utf-8")
        tell(f"tunnel {bound} -> {settings.manager}; Ctrl-C ends it")

    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_until_stopped(Tunnel(at, settings.manager, files), ready))
    return 0


async def _until_stopped(tunnel: Tunnel, ready: object) -> None:
    serving = asyncio.ensure_future(tunnel.serve(ready))  # type: ignore[arg-type]  # a function of an address
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
    await serving


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
