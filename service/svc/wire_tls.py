"""TLS 1.3 with certificates on both sides, as bytes in and bytes out, and as a blocking client socket.

Both run on `ssl.MemoryBIO`: the manager's loop stays non-blocking, and a client's two threads (one waits for
an answer, one interrupts it) never touch the socket's TLS state at the same time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from svc.errors import AuthenticationFailed, ConfigurationError
from svc.key_files import check_closed
from svc.wire_duplex import SHORT_BYTES, send_and_read

if TYPE_CHECKING:
    import socket
    import ssl

#: The name in `TlsFiles` that accepts any name in the certificate, if the CA signed it.
ANY_NAME = "*"
#: Bytes that are read at once, from a socket or from the TLS engine.
_CHUNK_BYTES = 64 * 1024


class TlsError(OSError):
    """The other side ended TLS or violated it; the message has the reason."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The files of one side, by path, so that they can be passed to another process.

    Attributes:
        cert: this side's certificate, followed by those between it and the CA (PEM).
        key: its private key (PEM, without a passphrase).
        ca: certificates of the authorities whose certificates are trusted (PEM).
        name: the name that the manager's certificate must have; empty for the host name of the connection,
            `ANY_NAME` for no check.
    """

    cert: Path
    key: Path
    ca: Path
    name: str = ""

    def __post_init__(self) -> None:
        """Import `ssl` now: if a thread imported it during a fork, the child would hang."""
        import ssl  # noqa: F401

    def server_context(self) -> ssl.SSLContext:
        """Return the manager's TLS context: TLS 1.3, and only clients with a certificate of the CA.

        Raises:
            ConfigurationError: a file cannot be read, or has the wrong content.
            AuthenticationFailed: every user of the host can read or change the key.
        """
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.verify_mode = ssl.CERT_REQUIRED
        context.num_tickets = 0  # a connection lasts; nothing is resumed
        return self._filled(context)

    def client_context(self) -> ssl.SSLContext:
        """Return the client's TLS context: the manager's certificate must be of the CA and have its name.

        Raises:
            ConfigurationError: as `server_context`.
        """
        import ssl

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = self.name != ANY_NAME
        return self._filled(context)

    def dialled(self, host: str) -> str:
        """Return the name that the certificate of the manager at *host* must have."""
        return host.partition("%")[0] if self.name in ("", ANY_NAME) else self.name

    def _filled(self, context: ssl.SSLContext) -> ssl.SSLContext:
        import ssl

        context.minimum_version = ssl.TLSVersion.TLSv1_3
        try:
            check_closed(self.key, self.key.stat().st_mode)
            context.load_cert_chain(self.cert, self.key, password=_no_passphrase)
        except AuthenticationFailed:
            raise
        except (OSError, ValueError) as error:
            raise ConfigurationError(
                f"the certificate {self.cert} and its key {self.key} cannot be used: {_reason(error)}; "
                "`svc auth ca DIR` makes a set"
            ) from None
        try:
            context.load_verify_locations(self.ca)
        except OSError as error:
            raise ConfigurationError(
                f"the CA certificate {self.ca} cannot be used: {_reason(error)}"
            ) from None
        return context


class Tls:
    """One side of one TLS connection, without a socket."""

    __slots__ = ("_incoming", "_object", "_outgoing", "ready")

    def __init__(self, context: ssl.SSLContext, *, server_side: bool, name: str | None = None) -> None:
        """Begin a handshake; for a client, *name* is the name that the other side's certificate must have."""
        import ssl

        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._object = context.wrap_bio(self._incoming, self._outgoing, server_side, name)
        #: Whether the handshake is over, and both certificates are trusted.
        self.ready = False

    def feed(self, data: bytes) -> bytes:
        """Take bytes from the network; return the decrypted data.

        Raises:
            TlsError: the bytes violate TLS; `output` may have an alert for the other side.
        """
        import ssl

        if data:
            self._incoming.write(data)
        said: list[bytes] = []
        try:
            if not self.ready:
                self._object.do_handshake()
                self.ready = True
            while part := self._object.read(_CHUNK_BYTES):
                said.append(part)
        except (ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            pass  # all is read; if the other side has ended TLS, its socket ends next
        except ssl.SSLError as error:
            raise TlsError(_reason(error)) from None
        return b"".join(said)

    def encrypt(self, data: bytes | bytearray | memoryview) -> bytes:
        """Return the bytes to send for *data*, with other bytes that are due.

        Raises:
            TlsError: the connection has ended.
        """
        import ssl

        try:
            sent = 0
            with memoryview(data) as view:
                while sent < len(view):
                    sent += self._object.write(view[sent:])
        except ssl.SSLError as error:
            raise TlsError(_reason(error)) from None
        return self.output()

    def output(self) -> bytes:
        """Return the bytes that are due to be sent: parts of the handshake, alerts."""
        return self._outgoing.read()


class TlsSocket:
    """A blocking TLS connection with the methods of a socket; one thread may read while another writes."""

    def __init__(self, sock: socket.socket, tls: Tls) -> None:
        """Go on over *sock*, over which the handshake of *tls* was made."""
        import threading

        self._socket = sock
        self._tls = tls
        self._engine = threading.Lock()
        self._order = threading.Lock()
        self._buffer = bytearray()

    def settimeout(self, seconds: float | None) -> None:
        """Set the time limit of each operation in seconds; None for no limit."""
        self._socket.settimeout(seconds)

    def sendall(self, data: bytes | bytearray) -> None:
        """Send all of *data*; as a socket does, and see `Stream.send` for what is long."""
        with self._order:
            with self._engine:
                sealed = self._tls.encrypt(data)
            if len(data) > SHORT_BYTES:
                send_and_read(self._socket, sealed, self._feed)
            else:
                self._socket.sendall(sealed)

    def recv(self, size: int) -> bytes:
        """Return up to *size* bytes, at least one unless the connection has ended; as a socket does."""
        while not self._buffer:
            data = self._socket.recv(max(size, _CHUNK_BYTES))
            if not data:
                return b""
            self._feed(data)
        part = bytes(self._buffer[:size])
        del self._buffer[:size]
        return part

    def recv_into(self, buffer: memoryview) -> int:
        """Write into *buffer* what `recv` returns; return the number of bytes."""
        data = self.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def fileno(self) -> int:
        """Return the descriptor of the socket."""
        return self._socket.fileno()

    def pending(self) -> int:
        """Return how many bytes were received that `recv` has not returned."""
        return len(self._buffer)

    def shutdown(self, how: int) -> None:
        """End the connection, as a socket does."""
        self._socket.shutdown(how)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def _feed(self, data: bytes) -> None:
        with self._engine:
            self._buffer += self._tls.feed(data)


def _no_passphrase() -> str:
    # Without this, OpenSSL would ask for a passphrase on the terminal and wait.
    raise ValueError("the key has a passphrase; it must have none")


def _reason(error: Exception) -> str:
    """Return the reason of an error in words, without OpenSSL's source lines."""
    import ssl

    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.lower().replace("_", " ")
    return getattr(error, "strerror", None) or str(error)
