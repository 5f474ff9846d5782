"""Sends long messages, and reads the bytes that come meanwhile.

A manager whose answers wait to be read reads nothing itself. A peer that sends many requests without reading
their answers, and then waits until all of the next request is sent, would wait for ever.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Callable
from typing import Protocol

#: Bytes of a message up to which it is simply sent: buffers of the systems hold some of these.
SHORT_BYTES = 16 * 1024
_PART_BYTES = 256 * 1024
#: In a blocking socket, `send` would wait until all is sent. Windows has no such flag, and no `poll`.
_AT_ONCE = getattr(socket, "MSG_DONTWAIT", 0)


class HasFileno(Protocol):
    """A socket, or anything else with a descriptor."""

    def fileno(self) -> int:
        """Return the descriptor."""


def ready(channel: HasFileno, seconds: float | None, *, to_write: bool = False) -> tuple[bool, bool]:
    """Wait up to *seconds*, or for ever; return whether *channel* can be read, and whether it can be written.

    That it can be written ends the wait only if it is *to_write*. A failed connection can be both.
    """
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(channel, select.POLLIN | (select.POLLOUT if to_write else 0))
        found = poll.poll(None if seconds is None else seconds * 1000)
        mask = found[0][1] if found else 0
        return bool(mask & ~select.POLLOUT), bool(mask & select.POLLOUT)
    reading, writing, _ = select.select([channel], [channel] if to_write else [], [], seconds)
    return bool(reading), bool(writing)


def send_and_read(sock: socket.socket, data: bytes | bytearray, keep: Callable[[bytes], object]) -> None:
    """Send all of *data* within the timeout of *sock*; call *keep* with the bytes that come before that.

    Raises:
        EOFError: the peer has closed the connection.
        OSError: the connection is broken, or the time has passed.
    """
    limit = sock.gettimeout()
    end = None if limit is None else time.monotonic() + limit
    with memoryview(data) as view:
        sent = 0
        while sent < len(view):
            left = None if end is None else max(0.0, end - time.monotonic())
            readable, writable = ready(sock, left, to_write=True)
            if writable:
                sent += sock.send(view[sent : sent + _PART_BYTES], _AT_ONCE)
            elif not readable:
                raise TimeoutError("the deadline has passed")
            elif came := sock.recv(_PART_BYTES):
                keep(came)
            else:
                raise EOFError("the connection was closed")
