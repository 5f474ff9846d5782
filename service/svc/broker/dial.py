"""Makes connections to a manager: TCP, TLS if there are certificates, and the stdlib's handshake."""

from __future__ import annotations

# `socket` imports it at the first host name. A child forked during that import would wait for ever.
import encodings.idna  # noqa: F401
import pickle
import socket
import time
from typing import TYPE_CHECKING

from svc.errors import AuthenticationFailed, BadRequest
from svc.wire import Stream, with_header
from svc.wire_handshake import CHALLENGE, WELCOME, answer, is_right, make_challenge
from svc.wire_tls import TlsError, TlsFiles

if TYPE_CHECKING:
    import ssl

#: Seconds without data before the first probe, seconds between two probes, and the number of unanswered
#: probes after which the connection is dead. The first option has another name under macOS.
KEEP_ALIVE = {"TCP_KEEPIDLE": 10, "TCP_KEEPALIVE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


class Dialer:
    """Makes connections to one manager, one at a time."""

    def __init__(self, address: tuple[str, int], authkey: bytes, tls: TlsFiles | None) -> None:
        """Dial *address* later, with the shared secret and the certificates of this side."""
        self._address = address
        self._name = f"{address[0]}:{address[1]}"
        self._authkey = authkey
        self._tls = tls
        self._context: ssl.SSLContext | None = None

    def connect(self, deadline: float) -> Stream:
        """Return a connection over which both sides have proved the authkey.

        Raises:
            AuthenticationFailed: one side does not trust the other's key or certificate.
            BadRequest: the peer is not a manager.
            OSError, EOFError: the connection broke, or *deadline* (monotonic) has passed.
        """
        plain = socket.create_connection(self._address, timeout=max(0.001, deadline - time.monotonic()))
        try:
            _keep_alive(plain)
            stream = Stream(plain)
            if self._tls is not None:
                self._context = self._context or self._tls.client_context()
                stream.allow(deadline)
                stream = Stream(self._tls.dial(plain, self._context, self._address[0]))
            stream.allow(deadline)
            self._shake_hands(stream, deadline)
        except TlsError as error:
            plain.close()
            raise AuthenticationFailed(
                f"no TLS with the manager at {self._name}: {error}; "
                "both sides need certificates of one CA, and the manager's must have the name that is dialled"
            ) from None
        except BaseException:
            plain.close()
            raise
        return stream

    def _shake_hands(self, stream: Stream, deadline: float) -> None:
        """Prove to the manager that we know the key, verify that it does, and send `accept_connection`."""
        response = answer(self._authkey, self._challenge(stream, deadline))
        if response is None:
            raise BadRequest(f"{self._name} is not a manager: no challenge came")
        stream.send(with_header(response))
        if stream.receive(deadline) != WELCOME:
            raise AuthenticationFailed(
                f"the manager at {self._name} refused the authkey; both sides must read the same key file"
            )
        challenge = make_challenge()
        stream.send(with_header(CHALLENGE + challenge))
        if not is_right(self._authkey, challenge, stream.receive(deadline)):
            raise AuthenticationFailed(f"whoever answers at {self._name} does not know the authkey")
        request = pickle.dumps((None, "accept_connection", ("svc",), {}), protocol=4)
        stream.send(with_header(WELCOME) + with_header(request))
        stream.receive(deadline)

    def _challenge(self, stream: Stream, deadline: float) -> bytes:
        try:
            return stream.receive(deadline)
        except (EOFError, TimeoutError) as error:
            if self._tls is not None:
                raise
            # A manager with TLS waits for the client's first message, and then closes the connection.
            raise type(error)("no challenge came; is it overloaded, or does it ask for TLS?") from None


def _keep_alive(plain: socket.socket) -> None:
    """Send small messages at once and detect a dead peer soon, with the options that the system has."""
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, number in KEEP_ALIVE.items():
        option = getattr(socket, name, None)
        if option is not None:
            plain.setsockopt(socket.IPPROTO_TCP, option, number)
