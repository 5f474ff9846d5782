"""Writes whole lines to a descriptor that other processes share, without waiting long for its reader.

If no process reads the pipe, a process that logs would block: a supervisor would not react to SIGTERM, while
its leases are still renewed. So the reader has a second to make room. After that, lines are dropped and
counted until there is room again.
"""

from __future__ import annotations

import os
import select
import socket
import stat
import time
import weakref
from collections.abc import Callable
from functools import partial

#: Seconds that a line waits for room. After a failure, lines do not wait until one is written again. A slow
#: reader loses nothing.
PATIENCE_SECONDS = 1.0

Write = Callable[[bytes], int]


class LineWriter:
    """Writes lines of at most PIPE_BUF bytes (4096 on Linux), each in one piece.

    Attributes:
        dropped: how many lines were dropped since `take_dropped`.
    """

    def __init__(self, descriptor: int) -> None:
        """Write to *descriptor* without changing its flags, since other processes share them."""
        self.dropped = 0
        self._descriptor = descriptor
        self._write = self._writer(descriptor)
        self._stalled = False

    def write(self, line: bytes) -> bool:
        """Write *line*, including its newline; return whether it was written."""
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

    def _writer(self, descriptor: int) -> Write:
        """Return a function that writes a line to *descriptor* and returns how many bytes were written."""
        try:
            mode = os.fstat(descriptor).st_mode
        except OSError:
            return lambda line: 0
        if stat.S_ISREG(mode):
            # A file never blocks. A second descriptor would have a separate offset.
            return partial(os.write, descriptor)
        if stat.S_ISSOCK(mode):
            # Other processes rely on the flags of the socket, so each send has its own flag not to wait.
            shared = socket.socket(fileno=os.dup(descriptor))
            weakref.finalize(self, shared.close).atexit = False
            return lambda line: shared.send(line, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        own = _reopened(descriptor)
        if own is not None:
            weakref.finalize(self, os.close, own).atexit = False
            return partial(os.write, own)
        # Another process may take the room before this one uses it: rare, and only blocks on a full pipe.
        return lambda line: os.write(descriptor, line) if _has_room(descriptor, 0.0) else 0

    def _try(self, line: bytes) -> bool:
        try:
            return self._write(line) == len(line)
        except OSError:
            return False

    def _wait(self, line: bytes, end: float) -> bool:
        """Try again whenever there may be room; another process may take the room first."""
        while (left := end - time.monotonic()) > 0:
            if not _has_room(self._descriptor, left):
                return False
            if self._try(line):
                return True
        return False


def _reopened(descriptor: int) -> int | None:
    """Return a new non-blocking descriptor of the same pipe or terminal; None if it cannot be opened."""
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        return os.open(f"/proc/self/fd/{descriptor}", flags)
    except OSError:
        return None


def _has_room(descriptor: int, seconds: float) -> bool:
    """Return whether a line can be written within *seconds*; False also if the reader has gone."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    found = poll.poll(seconds * 1000)
    return any(events & select.POLLOUT and not events & select.POLLERR for _, events in found)
