"""Listens for a standby: it ends each connection before the handshake, or says who leads if it is asked.

A stock client waits for the manager's challenge. It gets the end of the connection within some 50 ms, so that
a load balancer, or its next `connect`, finds the leader. A client of ours that was turned away like this asks
on its next connection: the framed question comes first, right behind the connect (or the TLS handshake), and
gets one framed answer.

The socket is the manager's own: `stop` gives it back for the server of a takeover, and whoever connects
meanwhile waits in the kernel's queue.
"""

from __future__ import annotations

import os
import selectors
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from svc.wire import with_header
from svc.wire_handshake import LEADER_QUESTION, who_leads
from svc.wire_tls import Tls, TlsError

if TYPE_CHECKING:
    import ssl

#: Seconds that a peer has for the beginning of its question.
QUESTION_SECONDS = 0.05
#: Seconds that a peer has for the TLS handshake, once it has begun.
TLS_SECONDS = 1.0
#: Connections at a time. At this number, and after so many in a period, others wait in the kernel's queue.
OPEN_MAX, ACCEPTS_MAX = 256, 64
#: The length of the period in seconds.
PERIOD_SECONDS = 0.1
_QUESTION = with_header(LEADER_QUESTION)
_RECEIVED_BYTES = 16 * 1024
#: Bytes of a peer that are read at most; a TLS handshake with certificates is far shorter.
_RECEIVED_BYTES_MAX = 64 * 1024


class _Guest:
    """A peer that is about to be turned away."""

    def __init__(self, sock: socket.socket, peer: str, context: ssl.SSLContext | None, now: float) -> None:
        self.sock = sock
        self.peer = peer
        self.until = now + QUESTION_SECONDS
        self.tls = None if context is None else Tls(context, server_side=True)
        self._said = b""
        self._bytes = 0

    def take(self, data: bytes, now: float) -> bool | None:
        """Take bytes; return whether they are the question, or None if more may come.

        Raises:
            TlsError: the peer does not speak TLS, or has no certificate that is trusted.
        """
        self._bytes += len(data)
        if self.tls is not None:
            was_ready = self.tls.ready
            if not self._said and not was_ready:
                self.until = max(self.until, now + TLS_SECONDS)
            try:
                data = self.tls.feed(data)
            finally:
                self.send(self.tls.output())
            if self.tls.ready and not was_ready:
                self.until = now + QUESTION_SECONDS
        self._said += data
        if len(self._said) >= len(_QUESTION) or self._bytes > _RECEIVED_BYTES_MAX:
            return self._said == _QUESTION
        return None if _QUESTION.startswith(self._said) else False

    def answer(self, message: bytes) -> None:
        """Send the answer; it is short, and fits into the socket's buffer."""
        framed = with_header(message)
        self.send(framed if self.tls is None else self.tls.encrypt(framed))

    def send(self, data: bytes) -> None:
        """Send bytes, if there is room for them."""
        if data:
            self.sock.send(data)


class StandbyListener:
    """Turns connections away, from `start` to `stop`, in a thread of its own."""

    def __init__(
        self,
        listener: socket.socket,
        leader: Callable[[], tuple[str, ...]],
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Turn the peers away that connect to *listener*.

        Args:
            listener: a bound socket that listens.
            leader: returns the leader's addresses, as HOST:PORT; none if it is not known. It is called in the
                listener's thread, and must return at once.
            tls: the TLS context of all connections; None without TLS. It may be replaced.
        """
        self.tls = tls
        self._listener = listener
        self._leader = leader
        self._selector = selectors.DefaultSelector()
        self._guests: dict[int, _Guest] = {}
        self._accepted = 0
        self._period_end = 0.0
        self._accepting = True
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._run, name="svc-standby", daemon=True)
        self._log = structlog.get_logger("svc.manager")

    def start(self) -> None:
        """Begin."""
        self._listener.setblocking(False)
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._thread.start()

    def stop(self) -> socket.socket:
        """End; return the listening socket, which still listens."""
        os.write(self._wake_write, b"\0")
        self._thread.join()
        for guest in list(self._guests.values()):
            self._close(guest)
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
        return self._listener

    # --- the thread ---------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select(self._seconds_to_next(time.monotonic())):
                if key.fd == self._wake_read:
                    return
                if key.data is None:
                    self._accept(time.monotonic())
                else:
                    self._read(key.data, time.monotonic())
            self._keep_time(time.monotonic())

    def _seconds_to_next(self, now: float) -> float | None:
        until = [guest.until for guest in self._guests.values()]
        if not self._accepting and len(self._guests) < OPEN_MAX:
            until.append(self._period_end)
        return max(0.0, min(until) - now) if until else None

    def _keep_time(self, now: float) -> None:
        """Turn those away that have asked nothing in time, and accept again after a pause."""
        for guest in [each for each in self._guests.values() if now >= each.until]:
            self._close(guest)
        if not self._accepting and now >= self._period_end and len(self._guests) < OPEN_MAX:
            self._accepting = True
            self._selector.register(self._listener, selectors.EVENT_READ)

    def _accept(self, now: float) -> None:
        if now >= self._period_end:
            self._period_end, self._accepted = now + PERIOD_SECONDS, 0
        while self._accepted < ACCEPTS_MAX and len(self._guests) < OPEN_MAX:
            try:
                sock, address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:  # no descriptor is left, or the peer has gone
                self._log.error("accept_paused", error=str(error))
                break
            self._accepted += 1
            sock.setblocking(False)
            guest = self._guests[sock.fileno()] = _Guest(sock, f"{address[0]}:{address[1]}", self.tls, now)
            self._selector.register(sock, selectors.EVENT_READ, guest)
        self._accepting = False
        self._selector.unregister(self._listener)

    def _read(self, guest: _Guest, now: float) -> None:
        try:
            data = guest.sock.recv(_RECEIVED_BYTES)
            asked = guest.take(data, now) if data else False
            if asked:
                guest.answer(who_leads(self._leader()))
        except BlockingIOError:
            return
        except (OSError, TlsError):
            asked = False
        if asked is not None:
            self._close(guest, asked=asked)

    def _close(self, guest: _Guest, *, asked: bool = False) -> None:
        del self._guests[guest.sock.fileno()]
        self._selector.unregister(guest.sock)
        guest.sock.close()
        if not asked:
            self._log.info("peer_turned_away", peer=guest.peer, leader=",".join(self._leader()) or "unknown")
