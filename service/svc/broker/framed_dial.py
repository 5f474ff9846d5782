"""A dial that exchanges framed messages with the other side, over TLS if there are certificates."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from svc.errors import AuthenticationFailed, BadRequest
from svc.first_answer import Dial, Target
from svc.wire import HEADER
from svc.wire_tls import Tls, TlsError, TlsFiles

if TYPE_CHECKING:
    import ssl

#: Seconds without data before the first probe, seconds between two probes, and the number of unanswered
#: probes after which the connection is dead. The first option has another name under macOS.
KEEP_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPALIVE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
#: Bytes of one message before the end of the handshake; a manager's are shorter.
_MESSAGE_BYTES_MAX = 4096


class NoTls(AuthenticationFailed):
    """The two sides agree on no TLS; their keys may be the same."""


class FramedDial(Dial):
    """The dial to one address; a subclass takes the messages."""

    def __init__(self, target: Target, files: TlsFiles | None, context: ssl.SSLContext | None) -> None:
        """Begin to connect to *target*, with the certificates of this side."""
        super().__init__(target)
        self.tls: Tls | None = None
        if files is not None and context is not None:
            self.tls = Tls(context, server_side=False, name=files.dialled(target.host))
        #: The bytes that came after the last message.
        self.received = bytearray()

    def secured(self) -> None:
        """Go on after the TLS handshake, or after the connect if there is none."""

    def message(self, message: bytes) -> None:
        """Take a message of the other side.

        Raises:
            Exception: this address will not do.
        """
        raise NotImplementedError

    def ended(self) -> Exception:
        """Return the error of a connection that the other side has closed."""
        raise NotImplementedError

    @property
    def ready(self) -> bool:
        """Whether messages can be exchanged: the TLS handshake is over, if there is one."""
        return self.connected and (self.tls is None or self.tls.ready)

    def say_message(self, framed: bytes) -> None:
        """Send a message, header included."""
        self.say(framed if self.tls is None else self.tls.encrypt(framed))

    def greet(self) -> None:
        """Begin TLS; without it, the manager speaks first."""
        _keep_alive(self.sock)
        if self.tls is None:
            self.secured()
        else:
            self._decrypt(self.tls, b"")

    def take(self, data: bytes) -> None:
        """Take a part of the other side's messages; see `Dial.take`."""
        if not data:
            raise self.ended()
        self.received += data if self.tls is None else self._decrypt(self.tls, data)
        while not self.answered and len(self.received) >= HEADER.size:
            (length,) = HEADER.unpack_from(self.received)
            if not 0 <= length <= _MESSAGE_BYTES_MAX:
                raise BadRequest(f"{self.target} is not a manager: it announced a message of {length} bytes")
            stop = HEADER.size + length
            if len(self.received) < stop:
                return
            message = bytes(self.received[HEADER.size : stop])
            del self.received[:stop]
            self.message(message)

    def _decrypt(self, tls: Tls, data: bytes) -> bytes:
        was_ready = tls.ready
        try:
            return tls.feed(data)
        except TlsError as error:
            raise NoTls(
                f"no TLS with the manager at {self.target}: {error}; "
                "both sides need certificates of one CA, and the manager's must have the name that is dialled"
            ) from None
        finally:
            self.say(tls.output())
            if tls.ready and not was_ready:
                self.secured()


def _keep_alive(plain: socket.socket) -> None:
    """Send small messages at once and detect a dead peer soon, with the options that the system has."""
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, number in KEEP_ALIVE.items():
        option = getattr(socket, name, None)
        if option is not None:
            plain.setsockopt(socket.IPPROTO_TCP, option, number)
