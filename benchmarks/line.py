"""A connection to a manager on which a benchmark can send messages that no client of ours sends."""

from __future__ import annotations

import pickle
import socket
from collections.abc import Sequence
from multiprocessing.connection import Client
from typing import Any

from svc import wire
from svc.domain.commands import Command, Ping

#: Seconds that an answer may take.
ANSWER_SECONDS = 120.0
_FAR = wire.MESSAGE_BYTES_MAX * 4
Endpoint = tuple[str, int]


def frame(commands: Sequence[Command]) -> bytes:
    """Return the message of a frame of commands."""
    return bytes(wire.encode_request(1, commands)[wire.HEADER.size :])


class Line:
    """A connection with a key, after the handshake and `accept_connection`."""

    def __init__(self, endpoint: Endpoint, authkey: bytes) -> None:
        """Connect and prove the key, as a stock client does.

        Raises:
            OSError, EOFError: the manager refuses the connection.
        """
        self._connection = Client(endpoint, authkey=authkey)
        self.call(None, "accept_connection", "benchmark")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def ping(self) -> None:
        """Send a ping and wait for the answer."""
        self.ask([Ping()])

    def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Send a frame of commands; return the replies."""
        self.send(frame(commands))
        return self.answer()

    def call(self, ident: str | None, method: str, *args: object) -> object:
        """Make a stock client's call; return its value or its exception."""
        self.send(pickle.dumps((ident, method, args, {}), protocol=4))
        _, value = pickle.loads(self.receive())
        return value

    def send(self, body: bytes | bytearray | memoryview) -> None:
        """Send one message. Messages of the manager wait for `receive`."""
        self._connection.send_bytes(body)

    def send_raw(self, data: bytes) -> None:
        """Send bytes without a header."""
        with self.socket() as raw:
            raw.sendall(data)

    def socket(self) -> socket.socket:
        """Return another handle of the same socket."""
        return socket.fromfd(self._connection.fileno(), socket.AF_INET, socket.SOCK_STREAM)

    def has_answer(self, seconds: float) -> bool:
        """Return whether a message, or the end of the connection, comes within *seconds*."""
        return self._connection.poll(seconds)

    def receive(self) -> bytes:
        """Return the next message.

        Raises:
            TimeoutError: none came in time.
            EOFError, OSError: the manager has ended the connection.
        """
        if not self._connection.poll(ANSWER_SECONDS):
            raise TimeoutError(f"no answer within {ANSWER_SECONDS:g} s")
        return self._connection.recv_bytes(_FAR)

    def answer(self) -> list[Any]:
        """Return the replies of the next frame."""
        _, replies = wire.decode_response(wire.response_frame(self.receive()) or b"")
        return list(replies)
