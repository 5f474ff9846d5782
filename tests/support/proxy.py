"""A TCP proxy that can delay data, cut replies, reset and go silent; one of them finds the leader."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time

_LOOK_SECONDS = 0.05
_FOREVER = 1e6
#: Seconds that a manager has for its first bytes, which are its challenge.
_CHALLENGE_SECONDS = 1.0


class Link:
    """One connection through the proxy; `cut` is the number of further reply bytes that it transmits."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.ends = (client, server)
        self.silent_until = self.mute_until = 0.0
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
                held = self.mute_until if source is self.ends[1] else 0.0
                if not self._wait(max(held, self.silent_until, time.monotonic() + proxy.delay)):
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
        self._silent = False
        self._target = target
        self._links: list[Link] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def silence(self) -> None:
        """Transmit nothing more, on open connections and on new ones, as if the network lost all of it."""
        self._silent = True
        for link in self.links():
            link.silent_until = time.monotonic() + _FOREVER

    def mute(self) -> None:
        """Transmit no more replies on the open connections, until `resume`; requests go on."""
        for link in self.links():
            link.mute_until = time.monotonic() + _FOREVER

    def resume(self) -> None:
        """End `silence` or `mute`; connections of that time are reset."""
        self._silent = False
        for link in self.links():
            link.reset()

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
            threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        try:
            server = self._dial()
        except OSError:
            client.close()
            return
        server.settimeout(None)
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = Link(client, server)
        if self._silent:
            link.silent_until = time.monotonic() + _FOREVER
        self._links.append(link)
        for source, sink in ((client, server), (server, client)):
            threading.Thread(target=link.pump, args=(self, source, sink), daemon=True).start()

    def _dial(self) -> socket.socket:
        return socket.create_connection(self._target, timeout=5)


class LeaderProxy(Proxy):
    """Relays to the one of several managers that leads, as a load balancer does; a standby hangs up."""

    def __init__(self, targets: list[tuple[str, int]]) -> None:
        """Relay to one of *targets*."""
        self._targets = targets
        super().__init__(targets[0])

    def _dial(self) -> socket.socket:
        for target in self._targets:
            with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
                server = stack.enter_context(socket.create_connection(target, timeout=5))
                if _speaks(server):
                    stack.pop_all()
                    return server
        raise OSError("no manager leads")


def _speaks(server: socket.socket) -> bool:
    """Return whether a manager begins the handshake; it does so at once, and a standby never."""
    ready, _, _ = select.select([server], [], [], _CHALLENGE_SECONDS)
    return bool(ready and server.recv(1, socket.MSG_PEEK))
