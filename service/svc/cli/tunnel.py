"""`svc tunnel`: a local relay over TLS for plain BaseManager clients."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from svc.addresses import Address
from svc.cli.output import tell
from svc.errors import ConfigurationError
from svc.settings import TunnelSettings

if TYPE_CHECKING:
    from svc.client.tunnel import Tunnel


def tunnel(settings: TunnelSettings) -> None:
    """Let plain clients reach a manager that asks for TLS.

    A client connects to --listen with its authkey as if the manager were there. Whoever can reach that
    port uses this host's certificate, but still needs an authkey.
    """
    from svc.app.process import announce
    from svc.client.tunnel import Tunnel

    files = settings.tls
    if files is None:
        raise ConfigurationError("a tunnel needs --tls-cert, --tls-key and --tls-ca")
    at = settings.listen
    if not at.is_loopback:
        raise ConfigurationError(
            f"--listen {at} is not a loopback address; what arrives there is not encrypted"
        )

    def ready(bound: Address) -> None:
        announce(settings.announce, listen=bound)
        tell(f"tunnel {bound} -> {settings.manager}; Ctrl-C ends it")

    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_until_stopped(Tunnel(at, settings.manager, files), ready))


async def _until_stopped(tunnel: Tunnel, ready: Callable[[Address], None]) -> None:
    serving = asyncio.ensure_future(tunnel.serve(ready))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, serving.cancel)
    await serving
