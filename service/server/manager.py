"""The `BaseManager` whose server is the event loop, and the listener it serves on."""

from __future__ import annotations

import socket
from multiprocessing.managers import BaseManager

from service.broker.host import QueueHost
from service.errors import Conflict
from service.server.loop import CONNECTIONS_MAX, Server

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
    """A BaseManager whose `get_server` gives the event loop.

    A client of it needs only the stdlib: `BaseManager.register("tasks")`, then `connect()`.
    """

    def __init__(
        self,
        host: QueueHost,
        listener: socket.socket,
        authkey: bytes,
        *,
        min_free_bytes: int = 0,
        connections_max: int = CONNECTIONS_MAX,
    ) -> None:
        """Serve the queue of *host* on *listener* to who knows *authkey*; the bounds are the server's."""
        super().__init__(address=listener.getsockname()[:2], authkey=authkey)
        self._host = host
        self._listener = listener
        self._key = authkey
        self._bounds = {"min_free_bytes": min_free_bytes, "connections_max": connections_max}

    def get_server(self) -> Server:
        """Return the server; it takes over the listener and the host.

        The stdlib's own `get_server` ignores `_Server` and always makes its thread-per-connection one.
        """
        return Server(self._host, self._listener, self._key, **self._bounds)


for _typeid in ("tasks", "results", "jobs"):
    JobManager.register(_typeid)
