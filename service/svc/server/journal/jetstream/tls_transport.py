"""A transport of nats-py that notices a host that is gone, and over TLS whose end is no warning in the log.

asyncio warns if the protocol of a connection over TLS wants to stay open for writing after the other side has
ended. nats-py upgrades its connections by hand, so that their protocol does not know that there is TLS.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any, Final

from nats.aio.transport import TcpTransport

if TYPE_CHECKING:
    import ssl


#: A host that has confirmed no byte for so many milliseconds is gone, however busy its server may be:
#: the kernel confirms. By pings alone, a host that vanishes is noticed after 3 to 4 s.
USER_TIMEOUT_MS: Final = 1500


class _TlsReaderProtocol(asyncio.StreamReaderProtocol):
    """The protocol of a connection that is closed if the other side has ended it."""

    def eof_received(self) -> bool:
        """Tell the reader; return that the connection is to be closed."""
        super().eof_received()
        return False


class TlsTransport(TcpTransport):
    """A TCP transport that may be upgraded to TLS."""

    def __init__(self) -> None:
        """Connect later."""
        super().__init__()  # type: ignore[no-untyped-call]

    def __bool__(self) -> bool:
        """Return true: nats-py replaces a transport that is false, as its own is until it has connected."""
        return True

    async def connect(self, uri: Any, buffer_size: int, connect_timeout: int) -> None:
        """Connect; see `nats.aio.transport.Transport.connect`."""
        await super().connect(uri, buffer_size, connect_timeout)
        assert self._io_writer is not None  # it would have raised
        sock = self._io_writer.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS)

    async def connect_tls(
        self,
        uri: Any,
        ssl_context: ssl.SSLContext,
        buffer_size: int,  # noqa: ARG002 - nats-py does not use it here, either
        connect_timeout: int,
    ) -> None:
        """Upgrade the connection; see `nats.aio.transport.Transport.connect_tls`."""
        assert self._io_writer is not None  # `connect` comes first
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        protocol = _TlsReaderProtocol(reader)
        name = uri if isinstance(uri, str) else uri.hostname
        upgrade = loop.start_tls(self._io_writer.transport, protocol, ssl_context, server_hostname=name)
        transport = await asyncio.wait_for(upgrade, connect_timeout)
        assert transport is not None  # it would have raised
        self._io_reader = reader
        self._io_writer = asyncio.StreamWriter(transport, protocol, reader, loop)
