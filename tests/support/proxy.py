"""A TCP proxy in front of the manager that can delay data, cut replies, reset and go silent."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time

_LOOK_SECONDS = 0.05


class Link:
    """One connection through the proxy; `cut` is the number of further reply bytes that it transmits."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.ends = (client, server)
        self.silent_until = 0.0
        self.cut: int | None = None
        self.closed = threading.Event()

    def pump(self, proxy: Proxy, source: socket.socket, sink: socket.socket) -> None:
        """Transmit bytes one way until either side ends or a fault stops it."""
        with contextlib.suppress(OSError, ValueError):
            while not self.closed.is_set():
                if not select.select([source], [], [], _LOOK_SECONDS)[0]:
                    continue
                data = source.recv(1 << 16)
                if not data:
                    break
                if not self._wait(max(self.silent_until, time.monotonic() + proxy.delay)):
                    break
                if self.cut is not None and source is self.ends[1]:
                    sink.sendall(data[: self.cut])
                    proxy.cuts += 1
                    break
                sink.sendall(data)
        self.reset()

    def reset(self) -> None:
        """End both connections with RST."""
        if self.closed.is_set():
            return
        self.closed.set()
        for end in self.ends:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.close()

    def _wait(self, until: float) -> bool:
        while (left := until - time.monotonic()) > 0:
            if self.closed.wait(left):
                return False
        return not self.closed.is_set()


class Proxy:
    """Listens on a port of its own and relays everything to *target*.

    Attributes:
        delay: delay of each piece in seconds.
        cuts: number of replies that were cut so far.
    """

    def __init__(self, target: tuple[str, int]) -> None:
        self.delay = 0.0
        self.cuts = 0
        self._target = target
        self._links: list[Link] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def links(self) -> list[Link]:
        """Return the open connections."""
        self._links = [link for link in self._links if not link.closed.is_set()]
        return self._links

    def close(self) -> None:
        self._listener.close()
        for link in self.links():
            link.reset()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._target, timeout=5)
            except OSError:
                client.close()
                continue
            server.settimeout(None)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            link = Link(client, server)
            self._links.append(link)
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=link.pump, args=(self, source, sink), daemon=True).start()
