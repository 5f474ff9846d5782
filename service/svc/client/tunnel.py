"""A local relay for plain BaseManager clients, which do not support TLS: loopback to TLS.

It does not look at the data: the client and the manager authenticate each other through it.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import structlog

from svc.addresses import Address
from svc.errors import Conflict
from svc.wire_tls import ANY_NAME, TlsFiles

#: Connections at a time; more are closed at once.
CONNECTIONS_MAX = 256
#: Seconds that connecting to the manager may take, TLS included.
CONNECT_SECONDS = 5.0
#: Bytes that are read at once; if as many wait for a side that does not read, reading stops.
_CHUNK_BYTES = 64 * 1024


class Tunnel:
    """Relays each connection of *listen* to *manager*, over TLS with the certificates of *files*."""

    def __init__(self, listen: Address, manager: Address, files: TlsFiles) -> None:
        """Prepare; `serve` runs it.

        Raises:
            ConfigurationError: a certificate or key cannot be used.
        """
        self._listen = listen
        self._manager = manager
        self._context = files.client_context()
        self._name = manager.host if files.name in ("", ANY_NAME) else files.name
        self._open = 0
        self._log = structlog.get_logger("svc.tunnel")

    async def serve(self, ready: Callable[[Address], None]) -> None:
        """Relay until cancelled; *ready* is called with the bound address.

        Raises:
            Conflict: the address is in use.
        """
        try:
            server = await asyncio.start_server(
                self._relay, self._listen.host, self._listen.port, limit=_CHUNK_BYTES
            )
        except OSError as error:
            raise Conflict(f"cannot listen on {self._listen}: {error.strerror or error}") from None
        async with server:
            ready(Address(*server.sockets[0].getsockname()[:2]))
            await server.serve_forever()

    async def _relay(self, inside: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        """Relay one connection, both ways, until either side ends it."""
        with contextlib.closing(back):
            if self._open >= CONNECTIONS_MAX:
                return
            self._open += 1
            try:
                outside, out = await asyncio.wait_for(self._dial(), CONNECT_SECONDS)
                with contextlib.closing(out):
                    await _first(_carry(inside, out), _carry(outside, back))
            except (OSError, TimeoutError) as error:
                self._log.warning(
                    "tunnel_broken", manager=str(self._manager), error=str(error) or "no answer"
                )
            finally:
                self._open -= 1

    async def _dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(
            self._manager.host,
            self._manager.port,
            ssl=self._context,
            server_hostname=self._name,
            limit=_CHUNK_BYTES,
        )


async def _first(*carriers: object) -> None:
    """Run both directions until one of them ends; raise the error that ended it, if there is one."""
    tasks = [asyncio.ensure_future(each) for each in carriers]  # type: ignore[call-overload]  # coroutines
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for each in done:
            each.result()
    finally:
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _carry(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
    while data := await source.read(_CHUNK_BYTES):
        target.write(data)
        await target.drain()
