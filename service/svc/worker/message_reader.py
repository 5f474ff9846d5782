"""The supervisor's end of a consumer's pipe: whole messages, whatever else a task writes into it."""

from __future__ import annotations

import os
from collections.abc import Callable
from multiprocessing.connection import Connection

import msgspec

from svc.wire import HEADER
from svc.worker.orders import MESSAGE_MAX

_PIECE_BYTES = 64 * 1024
#: Bytes of one `read`, so that a task which writes without end does not keep the supervisor.
READ_BYTES_MAX = 1 << 20


class MessageReader:
    """Reads the messages of a pipe without a wait for the rest of one.

    `Connection.recv_bytes` waits for it, and a task that writes a single byte into the pipe would stop the
    supervisor.

    Args:
        pipe: the end to read; nobody else reads it.

    Attributes:
        open: whether more may come.
        damaged: whether something came that no consumer sends; nothing is read after that.
    """

    def __init__(self, pipe: Connection) -> None:
        self.open = True
        self.damaged = False
        self._pipe = pipe
        self._unread = bytearray()

    def read(self, take: Callable[[bytes, bytes], bool]) -> None:
        """Give the kind and the body of each message that is whole by now to *take*.

        It returns whether there is such a kind, and raises a DecodeError of msgspec or a UnicodeDecodeError
        about a body that no consumer sends.
        """
        came = 0
        while self.open and came < READ_BYTES_MAX and self._pipe.poll():
            came += self._receive()
        try:
            known = all(take(message[:1], message[1:]) for message in self._whole())
        except (msgspec.DecodeError, UnicodeDecodeError):
            known = False
        if not known:
            self._note_damage()

    def _note_damage(self) -> None:
        self.open, self.damaged = False, True
        self._unread.clear()

    def _receive(self) -> int:
        try:
            piece = os.read(self._pipe.fileno(), _PIECE_BYTES)
        except OSError:
            piece = b""
        self.open = bool(piece)
        self._unread += piece
        return len(piece)

    def _whole(self) -> list[bytes]:
        found: list[bytes] = []
        start = 0
        while len(self._unread) - start >= HEADER.size:
            (length,) = HEADER.unpack_from(self._unread, start)
            if not 0 <= length <= MESSAGE_MAX:
                self._note_damage()
                return found
            end = start + HEADER.size + length
            if end > len(self._unread):
                break
            found.append(bytes(self._unread[start + HEADER.size : end]))
            start = end
        del self._unread[:start]
        return found
