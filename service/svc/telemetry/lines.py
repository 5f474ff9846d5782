"""Whole lines to a descriptor that others share, without waiting long for its reader.

A pipe that nobody reads would stop whoever logs: a supervisor would not hear SIGTERM while its leases are
renewed. So a reader has a second to make room; after that, lines are dropped and counted until it does.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import time
import weakref
from collections.abc import Callable

#: Seconds that a line waits for room, once; a reader that is slow but alive loses nothing.
PATIENCE_SECONDS = 1.0

Write = Callable[[bytes], int]


class LineWriter:
    """Writes lines of at most PIPE_BUF bytes (4096 on Linux), each in one piece.

    Attributes:
        dropped: how many lines found no room since `take_dropped`.
    """

    def __init__(self, descriptor: int) -> None:
        """Write to *descriptor*, whose flags stay as they are: other processes share them."""
        self.dropped = 0
        self._descriptor = descriptor
        self._write = _writer(descriptor)
        self._stalled = False

    def write(self, line: bytes) -> bool:
        """Write *line*, its newline included; return whether there was room, and a reader."""
        written = self._try(line)
        if not written and not self._stalled:
            written = self._wait(line, time.monotonic() + PATIENCE_SECONDS)
        self._stalled = not written
        self.dropped += not written
        return written

    def take_dropped(self) -> int:
        """Return how many lines were dropped since the last call."""
        count, self.dropped = self.dropped, 0
        return count

    def _try(self, line: bytes) -> bool:
        try:
            return self._write(line) == len(line)
        except OSError:
            return False

    def _wait(self, line: bytes, end: float) -> bool:
        """Try again whenever there may be room; several processes may want the same."""
        while (left := end - time.monotonic()) > 0:
            if not _has_room(self._descriptor, left):
                return False
            if self._try(line):
                return True
        return False


def _writer(descriptor: int) -> Write:
    """Return a function that writes to *descriptor* and returns how many bytes there was room for."""
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return lambda line: 0
    if stat.S_ISREG(mode):
        # It has room at once or never. A descriptor of our own would have an offset of its own.
        return lambda line: os.write(descriptor, line)
    if stat.S_ISSOCK(mode):
        return _Shared(descriptor).write
    own = _reopened(descriptor)
    if own is not None:
        return _Own(own).write
    # Another process may take the room before it is used; that is rare, and matters for a full pipe only.
    return lambda line: os.write(descriptor, line) if _has_room(descriptor, 0.0) else 0


class _Shared:
    """A socket whose flags others rely on; each send says for itself that it does not wait."""

    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=os.dup(descriptor))
        weakref.finalize(self, self._socket.close).atexit = False

    def write(self, line: bytes) -> int:
        return self._socket.send(line, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


class _Own:
    """A descriptor that is closed when nobody writes to it any more."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        weakref.finalize(self, os.close, descriptor).atexit = False

    def write(self, line: bytes) -> int:
        return os.write(self._descriptor, line)


def _reopened(descriptor: int) -> int | None:
    """Return a non-blocking descriptor of our own of the same pipe or terminal; None if that may not be."""
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        return os.open(f"/proc/self/fd/{descriptor}", flags)
    except OSError:
        return None


def _has_room(descriptor: int, seconds: float) -> bool:
    """Return whether a line can be written within *seconds*; False also if nobody will ever read it."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    found = poll.poll(seconds * 1000)
    return any(events & select.POLLOUT and not events & select.POLLERR for _, events in found)
