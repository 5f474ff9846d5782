"""The `BaseManager` whose server is the event loop, and the listener it serves on."""

from __future__ import annotations

import secrets
import socket
from multiprocessing.managers import BaseManager
from typing import TYPE_CHECKING

from svc.broker.host import QueueHost
from svc.errors import Conflict
from svc.server.connection_limits import Bounds
from svc.server.heap import Heap
from svc.server.keys import KeyRing
from svc.server.loop import Server

if TYPE_CHECKING:
    import ssl

#: Connections that may wait to be accepted; the kernel may cut it to `net.core.somaxconn`.
BACKLOG = 1024


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        Conflict: the address is in use, or is not one of this host.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise Conflict(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another `--listen` address"
        ) from None


class JobManager(BaseManager):
    """A BaseManager whose `get_server` returns the event loop.

    A client of it needs only the stdlib: `BaseManager.register("tasks")`, then `connect()`.
    """

    def __init__(
        self,
        host: QueueHost,
        listener: socket.socket,
        keys: KeyRing | bytes,
        *,
        min_free_bytes: int = 0,
        bounds: Bounds | None = None,
        strict: bool = False,
        tls: ssl.SSLContext | None = None,
        heap: Heap | None = None,
    ) -> None:
        """Serve the queue of *host* on *listener* to peers that know one of *keys*, or the one key.

        The other arguments are those of `Server`.
        """
        # The stdlib's own key is not used here, but nobody may know it.
        super().__init__(address=listener.getsockname()[:2], authkey=secrets.token_bytes(32))
        self._host = host
        self._listener = listener
        self._keys = keys
        self._min_free_bytes = min_free_bytes
        self._bounds = bounds
        self._strict = strict
        self._tls = tls
        self._heap = heap

    def get_server(self) -> Server:
        """Return the server; it takes over the listener and the host.

        The stdlib's own `get_server` ignores `_Server` and always makes its thread-per-connection one.
        """
        return Server(
            self._host,
            self._listener,
            self._keys,
            min_free_bytes=self._min_free_bytes,
            bounds=self._bounds,
            strict=self._strict,
            tls=self._tls,
            heap=self._heap,
        )


for _typeid in ("tasks", "results", "jobs"):
    JobManager.register(_typeid)
