"""A local relay for plain BaseManager clients, which do not support TLS: loopback to TLS.

It does not look at the data: the client and the manager authenticate each other through it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Collection

import structlog

from svc.addresses import Address, ManagerAddresses
from svc.errors import Conflict
from svc.first_answer import STAGGER_SECONDS, NoAnswer, Target, resolved
from svc.wire_tls import TlsFiles

#: Connections at a time; more are closed at once.
CONNECTIONS_MAX = 256
#: Seconds that connecting to the manager may take, TLS included.
CONNECT_SECONDS = 5.0
#: Bytes that are read at once; if as many wait for a side that does not read, reading stops.
_CHUNK_BYTES = 64 * 1024

#: A connection with TLS, to read from and to write to.
Line = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Tunnel:
    """Relays each connection of *listen* to *manager*, over TLS with the certificates of *files*."""

    def __init__(self, listen: Address, manager: ManagerAddresses, files: TlsFiles) -> None:
        """Prepare; `serve` runs it.

        Raises:
            ConfigurationError: a certificate or key cannot be used.
        """
        self._listen = listen
        self._manager = manager
        self._context = files.client_context()
        self._files = files
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

    async def _dial(self) -> Line:
        """Return a connection to the first address over which TLS is made; see `svc.first_answer`.

        Raises:
            NoAnswer: there is none.
        """
        errors: list[tuple[str, Exception]] = []
        running: dict[asyncio.Task[Line], str] = {}
        targets = self._targets(errors)
        try:
            while target := await anext(targets, None):
                running[asyncio.ensure_future(self._open_line(target))] = str(target)
                if line := await _first_line(running, errors, STAGGER_SECONDS):
                    return line
            while running:
                if line := await _first_line(running, errors, None):
                    return line
            raise NoAnswer(errors)
        finally:
            await _give_up(running)

    async def _targets(self, errors: list[tuple[str, Exception]]) -> AsyncIterator[Target]:
        """Yield the manager's addresses; add the errors of names without one to *errors*."""
        loop = asyncio.get_running_loop()
        for entry in self._manager.entries:
            try:
                found = await loop.run_in_executor(None, resolved, entry.host, entry.port)
            except OSError as error:
                errors.append((str(entry), error))
                continue
            for target in found:
                yield target

    async def _open_line(self, target: Target) -> Line:
        sock = socket.socket(target.family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, target.sockaddr)
            return await asyncio.open_connection(
                sock=sock,
                ssl=self._context,
                server_hostname=self._files.dialled(target.host),
                limit=_CHUNK_BYTES,
            )
        except BaseException:
            sock.close()
            raise


async def _first_line(
    running: dict[asyncio.Task[Line], str], errors: list[tuple[str, Exception]], seconds: float | None
) -> Line | None:
    """Return the first connection that is made within *seconds*; None if there is none, or one has failed."""
    done, _ = await asyncio.wait(running, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        name = running.pop(task)
        error = task.exception()
        if error is None:
            return task.result()
        if not isinstance(error, Exception):
            raise error
        errors.append((name, error))
    return None


async def _give_up(running: Collection[asyncio.Task[Line]]) -> None:
    """End the connections that have lost."""
    for task in running:
        task.cancel()
    for line in await asyncio.gather(*running, return_exceptions=True):
        if not isinstance(line, BaseException):
            line[1].close()


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
