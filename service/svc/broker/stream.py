"""Reads complete messages of `multiprocessing.connection` from a blocking socket, each by a deadline."""

from __future__ import annotations

import time
from typing import Protocol

from svc.errors import BadRequest
from svc.wire import HEADER, LONG_HEADER, RESPONSE_BYTES_MAX

#: Bytes of a read while the length of a message is not known yet; most messages are shorter.
_READ_BYTES = 64 * 1024
_LARGE_READ_BYTES = 1024 * 1024


class Channel(Protocol):
    """The socket methods that `Stream` uses; a TLS socket has them too."""

    def settimeout(self, seconds: float | None, /) -> None:
        """Let each operation take up to *seconds*."""

    def sendall(self, data: bytes | bytearray, /) -> None:
        """Send all of *data*."""

    def recv(self, size: int, /) -> bytes:
        """Return up to *size* bytes; none if the connection has ended."""

    def close(self) -> None:
        """Close the socket."""


class Stream:
    """A channel, and the bytes that were read from it after the last message."""

    __slots__ = ("_channel", "_rest")

    def __init__(self, channel: Channel) -> None:
        """Read and write *channel*, which `close` closes."""
        self._channel = channel
        self._rest = b""

    def allow(self, deadline: float | None) -> None:
        """Let the next operation take until *deadline* (monotonic); None for no limit.

        Raises:
            TimeoutError: the deadline has passed.
        """
        if deadline is None:
            self._channel.settimeout(None)
            return
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        self._channel.settimeout(left)

    def send(self, message: bytes | bytearray) -> None:
        """Send a complete message, header included, within the deadline of the last `allow`.

        Raises:
            OSError: the connection is broken, or the time has passed.
        """
        self._channel.sendall(message)

    def receive(self, deadline: float | None) -> bytes:
        """Return the next message, without its header.

        Raises:
            BadRequest: the header announces more bytes than any message may have.
            EOFError: the connection has ended.
            OSError: the connection is broken, or *deadline* has passed.
        """
        data = self._rest or self._read(_READ_BYTES, deadline)
        while (place := _place(data)) is None:
            data += self._read(_READ_BYTES, deadline)
        start, stop = place
        self._rest = data[stop:]
        if len(data) < stop:
            return self._read_up_to(stop - start, data[start:], deadline)
        return data[start:stop]

    def close(self) -> None:
        """Close the channel."""
        self._channel.close()

    def _read(self, size: int, deadline: float | None) -> bytes:
        self.allow(deadline)
        data = self._channel.recv(size)
        if not data:
            raise EOFError("the connection was closed")
        return data

    def _read_up_to(self, size: int, data: bytes, deadline: float | None) -> bytes:
        """Return *data* and the bytes after it, *size* bytes in all."""
        parts, missing = [data], size - len(data)
        while missing:
            parts.append(self._read(min(missing, _LARGE_READ_BYTES), deadline))
            missing -= len(parts[-1])
        return b"".join(parts)


def _place(data: bytes) -> tuple[int, int] | None:
    """Return the start and end of the first message in *data*, or None if its header is incomplete."""
    if len(data) < HEADER.size:
        return None
    start = HEADER.size
    (length,) = HEADER.unpack_from(data)
    if length == -1:
        if len(data) < start + LONG_HEADER.size:
            return None
        (length,) = LONG_HEADER.unpack_from(data, start)
        start += LONG_HEADER.size
    if not 0 <= length <= RESPONSE_BYTES_MAX:
        raise BadRequest(f"the manager announced a message of {length} bytes")
    return start, start + length
