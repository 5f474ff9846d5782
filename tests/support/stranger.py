"""A peer of the manager that sends any bytes, for attacks, and the reasons for its refusal in the log."""

from __future__ import annotations

import hmac
import pickle
import secrets
import socket
import struct
from contextlib import contextmanager
from typing import Self

from structlog.testing import capture_logs

from svc.wire import HEADER, with_header


class Stranger:
    """One TCP connection."""

    def __init__(self, endpoint: tuple[str, int], sock: socket.socket | None = None) -> None:
        self.socket = sock or socket.create_connection(endpoint, timeout=60)
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.socket.close()

    def send(self, data: bytes | bytearray) -> None:
        self.socket.sendall(data)

    def receive(self) -> bytes:
        """Return the next message; fail if the connection ends."""
        (length,) = HEADER.unpack(self._exactly(4))
        if length == -1:
            (length,) = struct.unpack("!Q", self._exactly(8))
        return self._exactly(length)

    def rest(self) -> bytes:
        """Return all data until the other side closes."""
        while True:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                return self._buffer
            self._buffer += data

    def shake_hands(self, authkey: bytes) -> None:
        """Do the handshake of a stock client of 3.12."""
        self.send(with_header(self.response(authkey)))
        assert self.receive() == b"#WELCOME#"
        self.finish()

    def finish(self) -> None:
        """Do the second half of the handshake: challenge the manager."""
        self.send(with_header(b"#CHALLENGE#{sha256}" + secrets.token_bytes(40)))
        self.receive()
        self.send(with_header(b"#WELCOME#"))

    def response(self, authkey: bytes) -> bytes:
        challenge = self.receive().removeprefix(b"#CHALLENGE#")
        return b"{sha256}" + hmac.new(authkey, challenge, "sha256").digest()

    def serve(self, authkey: bytes) -> None:
        """Do the handshake and the opening request, after which calls of shared objects are served."""
        self.shake_hands(authkey)
        self.send(with_header(pickle.dumps((None, "accept_connection", ("c",), {}))))
        self.receive()

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            data = self.socket.recv(65536)
            assert data, "the manager closed the connection"
            self._buffer += data
        part, self._buffer = self._buffer[:size], self._buffer[size:]
        return part


def connected(running, source: str = "127.0.0.1") -> Stranger:
    sock = socket.create_connection(running.endpoint, timeout=60, source_address=(source, 0))
    return Stranger(running.endpoint, sock)


def serves(running) -> bool:
    with running.broker() as broker:
        return bool(broker.connect().version)


@contextmanager
def noted():
    with capture_logs() as logs:
        yield lambda event: [log["reason"] for log in logs if log["event"] == event]
