"""Every connection of the manager: accepts them, waits for their events, and ends them."""

from __future__ import annotations

import errno
import select
import socket
import time
from typing import TYPE_CHECKING

import structlog

from svc.broker.host import QueueHost
from svc.server.connection import Connection, PeerGone, TlsRefused, TooLarge
from svc.server.connection_limits import ConnectionLimits
from svc.server.heap import LARGE_BYTES, Heap
from svc.server.keys import KeyRing
from svc.server.pace import Pace
from svc.server.peer_log import PeerLog

if TYPE_CHECKING:
    import ssl

#: Connections that are accepted in one turn at most. It is small: if very many peers connect at once, a peer
#: that answers promptly is read before the others have pushed it out.
ACCEPTS_MAX = 8
#: Seconds for which accepting pauses when the process has no descriptor left.
ACCEPT_PAUSE_SECONDS = 0.05
#: How often the buffers are checked while as many bytes arrive as they may hold.
BUFFER_LOOKS = 8
#: Seconds between two checks of slow readers, full buffers, and free space on disk and in memory.
HOUSEKEEPING_SECONDS = 0.5


class Connections:
    """Accepts connections, watches them, sends on them and ends them; the loop handles their messages."""

    def __init__(
        self,
        host: QueueHost,
        listener: socket.socket,
        limits: ConnectionLimits,
        epoll: select.epoll,
        *,
        peer_log: PeerLog,
        tls: ssl.SSLContext | None = None,
        heap: Heap | None = None,
    ) -> None:
        """Accept the peers that connect to *listener*.

        Args:
            host: the queue, which learns here of members that come and go.
            listener: a bound socket that listens.
            limits: the register of connections, and their bounds.
            epoll: the epoll object on which the loop waits.
            peer_log: counts and logs refusals.
            tls: the TLS context of all connections; None serves without TLS.
            heap: the C library's heap, to tune for large messages; only if the process is the manager's own.
        """
        self._host = host
        self._listener = listener
        #: The register of connections, and their bounds.
        self.limits = limits
        self._epoll = epoll
        #: Counts and logs refusals.
        self.peer_log = peer_log
        self._tls = tls
        self._heap = heap
        #: Connections that are not read at present, by descriptor.
        self.paused: dict[int, Connection] = {}
        #: When a pause of accepting ends (monotonic); 0 if there is none.
        self._accept_after = 0.0
        self._pace = Pace(limits.bounds.handshakes)
        #: Whether peers wait to be let in, because so many others are in their handshake.
        self.pacing = False
        #: Bytes that may have been buffered since the last check.
        self._unchecked = 0
        self._log = structlog.get_logger("svc.manager")

    # --- accepting ----------------------------------------------------------------------------------

    def listen(self) -> None:
        """Accept peers from now on."""
        self._listener.setblocking(False)
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)

    def stop_listening(self) -> None:
        """Accept no more peers."""
        self._epoll.unregister(self._listener.fileno())
        self._listener.close()

    def close(self) -> None:
        """Close every connection, and the listener."""
        self.close_all()
        self._listener.close()

    def renew(self, keys: KeyRing, tls: ssl.SSLContext | None) -> None:
        """Use *tls* for new connections, and end the connections whose key is not among *keys*."""
        self._tls, self.limits.keys = tls, len(keys)
        for connection in list(self.limits.connections.values()):
            if connection.key is not None and connection.key not in keys:
                self.drop(connection, "its key is not active any more")

    def accept(self) -> None:
        """Accept the peers that have connected, a few at a time."""
        for _ in range(ACCEPTS_MAX):
            if self._pace.waits(len(self.limits.half_open), time.monotonic()):
                self.pacing = True
                self._epoll.modify(self._listener.fileno(), 0)
                return
            try:
                sock, address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    # Without a descriptor the listener would stay readable and the loop would spin.
                    self._accept_after = time.monotonic() + ACCEPT_PAUSE_SECONDS
                    self._epoll.modify(self._listener.fileno(), 0)
                    self._log.error("accept_paused", error=str(error))
                return
            self._admit(sock, address[:2])

    def _admit(self, sock: socket.socket, address: tuple[str, int]) -> None:
        refusal = self.limits.refusal(address[0])
        if refusal:
            self.peer_log.refused_connection(f"{address[0]}:{address[1]}", refusal)
            sock.close()
            return
        try:
            connection = Connection(sock, address, self._tls)
        except OSError:
            sock.close()
            return
        self._host.connected(connection.member)
        connection.mask = select.EPOLLIN
        self._epoll.register(connection.fd, connection.mask)
        if evicted := self.limits.enter(connection):
            self.drop(evicted, "too many half-open connections")
        try:
            connection.start()
        except PeerGone as gone:
            self.drop(connection, str(gone))

    def proved(self) -> None:
        """Note that a peer has proved a key, so that the others that are let in are no flood."""
        self._pace.moved(time.monotonic())

    def opened(self, connection: Connection) -> str:
        """Give a place to a peer that has proved a key; return why it gets none, or an empty text."""
        refusal = self.limits.opened(connection)
        if refusal:
            self.peer_log.refused_connection(connection.peer, refusal, str(connection.role))
        else:
            self._host.observer.counted("svc_manager_connections")
        return refusal

    # --- one connection -----------------------------------------------------------------------------

    def watch(self, connection: Connection) -> None:
        """Set the events for which the connection waits next, or end it if it is done; note its buffers."""
        if connection.mask == select.EPOLLIN and connection.at_rest:
            return  # the usual case
        if connection.buffered:
            self._note_buffered(connection)
        if connection.mask == select.EPOLLIN and not (connection.paused or connection.closing):
            return
        if connection.closed:
            return
        if connection.closing and not connection.unsent:
            self.drop(connection, "done")
            return
        if connection.paused:
            # Reading goes on once the peer has read its answers, so the memory for one peer is bounded.
            self.paused[connection.fd] = connection
            mask = select.EPOLLRDHUP | (select.EPOLLOUT if connection.unsent else 0)
        else:
            self.paused.pop(connection.fd, None)
            mask = select.EPOLLIN
        if mask != connection.mask:
            connection.mask = mask
            self._epoll.modify(connection.fd, mask)

    def send(self, connection: Connection, message: bytes | bytearray) -> None:
        """Send a message, header included; do nothing if the connection is closed."""
        if connection.closed:
            return
        if len(message) >= LARGE_BYTES:
            self.note_large()
        try:
            connection.send(message)
        except PeerGone as gone:
            self.drop(connection, str(gone))
        else:
            if connection.unsent or connection.closing:
                self.watch(connection)

    def drop(self, connection: Connection, reason: str) -> None:
        """End a connection, and tell the host, which deals with the member's leases and waiting requests."""
        if connection.closed:
            return
        if self._remove(connection):
            self._host.disconnected(connection.member)
        if reason != "done":
            self._log.debug("connection_closed", peer=connection.peer, reason=reason)

    def _remove(self, connection: Connection) -> bool:
        """Close a connection and forget it; return whether its handshake was complete and it had a place."""
        self.paused.pop(connection.fd, None)
        was_open = self.limits.leave(connection)
        if was_open:
            self._host.observer.counted("svc_manager_connections", by=-1)
        self._epoll.unregister(connection.fd)
        connection.close()
        return was_open

    def close_all(self) -> None:
        """Close and forget every connection without telling the host."""
        for connection in list(self.limits.connections.values()):
            self._remove(connection)

    def give_up(self, connection: Connection, gone: PeerGone) -> None:
        """End a connection whose peer has gone or broken the rules."""
        if isinstance(gone, TlsRefused):
            self.peer_log.refused_stranger(connection.peer, str(gone))
        elif isinstance(gone, TooLarge):
            self.peer_log.refused_message(connection)
        self.drop(connection, str(gone))

    def _cut_off(self, connection: Connection, reason: str) -> None:
        self._log.warning("connection_cut_off", peer=connection.peer, reason=reason)
        self.drop(connection, reason)

    # --- time and room ------------------------------------------------------------------------------

    def seconds_to_next(self, until: float) -> float:
        """Return the seconds until there is work here, *until* at most."""
        if self.limits.half_open:
            until = min(until, self.limits.next_deadline() - time.monotonic())
        if self._accept_after:
            until = min(until, self._accept_after - time.monotonic())
        if self.pacing:
            until = min(until, self._pace.until - time.monotonic())
        if self.paused:
            until = min(until, HOUSEKEEPING_SECONDS)
        return max(0.0, until)

    def keep_time(self, now: float) -> None:
        """End handshakes that took too long, and accept again after a pause."""
        if self.limits.half_open:
            for connection in self.limits.overdue(now):
                self.drop(connection, "the handshake took too long")
        if self._accept_after and now >= self._accept_after:
            self._accept_after = 0.0
            self._epoll.modify(self._listener.fileno(), select.EPOLLIN)
        elif self.pacing and not self._pace.waits(len(self.limits.half_open), now):
            self.pacing = False
            self._epoll.modify(self._listener.fileno(), select.EPOLLIN)

    def cut_off_slow(self, now: float) -> None:
        """Cut off peers that do not read, and those with too many buffered bytes.

        Call it every `HOUSEKEEPING_SECONDS`.
        """
        if self._heap is not None:
            self._heap.tidy(now)
        bounds = self.limits.bounds
        for connection in list(self.paused.values()):
            allowed = bounds.stalled_seconds + connection.unsent / bounds.trickle
            if connection.unsent and now - connection.waiting_since > allowed:
                self._cut_off(connection, f"{connection.unsent} bytes wait for a peer that does not read")
        if self._unchecked:
            self._bound_buffers()

    def _bound_buffers(self) -> None:
        """Cut off connections until the buffered bytes are within their bound."""
        self._unchecked = 0
        while largest := self.limits.largest_buffer():
            self._cut_off(largest, f"it had the most of too many bytes that wait: {largest.buffered}")

    def _note_buffered(self, connection: Connection) -> None:
        """Note that a connection has buffered bytes; check the bound again after enough of them."""
        self._unchecked += connection.buffered
        if self._unchecked >= self.limits.bounds.buffered_bytes // BUFFER_LOOKS:
            self._bound_buffers()

    def note_large(self) -> None:
        """Note that a large message passes."""
        if self._heap is not None:
            self._heap.passes(time.monotonic())
