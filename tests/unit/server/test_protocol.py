"""The memory of a plain client's calls: the few that come again and again are read once."""

from __future__ import annotations

import pickle
import socket
from collections.abc import Iterator
from typing import cast

import pytest

from svc.broker.host import QueueHost
from svc.broker.journal import MemoryJournal
from svc.domain.roles import Role
from svc.server import plain_calls as subject
from svc.server.connection import Connection, Stage
from svc.server.connections import Connections
from svc.server.keys import Key, KeyRing
from svc.server.loop import Turns
from svc.server.peer_log import PeerLog
from svc.server.protocol import ConnectionProtocol
from tests.support.clock import FakeClock


class Peer:
    """A plain client behind a connection that is served; its answers are kept, not sent."""

    def __init__(self, sock: socket.socket, role: Role = Role.ADMIN) -> None:
        self.connection = Connection(sock, ("peer", 1))
        self.connection.stage, self.connection.key = Stage.SERVING, Key(role, b"secret")
        self.host = QueueHost(MemoryJournal(), clock=FakeClock())
        self.protocol = ConnectionProtocol(self.host, KeyRing([]), cast(Connections, self), Turns())
        self.peer_log = PeerLog(self.host.observer)
        self.said: list[tuple[str, object]] = []

    def send(self, connection: Connection, message: bytes | bytearray) -> None:
        """Keep an answer."""
        self.said.append(pickle.loads(message[4:]))

    def opened(self, connection: Connection) -> None:
        """Ignore it."""

    def call(self, method: str, *args: object, **kwds: object) -> tuple[str, object]:
        """Return the answer, as (kind, value)."""
        self.protocol.handle(self.connection, memoryview(pickle.dumps(("tasks", method, args, kwds))))
        self.host.turn()
        return self.said.pop()


@pytest.fixture
def sock() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            yield accepted


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The messages that were scanned and unpickled."""
    found: list[bytes] = []

    def loads(message: memoryview) -> object:
        found.append(bytes(message))
        return pickle.loads(message)

    monkeypatch.setattr(subject, "loads_plain", loads)
    return found


def test_calls_that_come_again_are_read_once_and_of_later_puts_only_the_items(sock, read):
    peer = Peer(sock)
    for number in range(3):
        assert peer.call("put", number) == ("#RETURN", None)
        assert peer.call("get", timeout=1) == ("#RETURN", number)
        assert peer.call("task_done") == ("#RETURN", None)

    assert [pickle.loads(message)[1] for message in read] == ["put", "get", "task_done"]


def test_another_connection_has_to_be_read_anew(sock, read):
    for _ in range(2):
        Peer(sock).call("qsize")

    assert len(read) == 2


def test_a_call_with_something_that_can_change_is_read_each_time(sock, read):
    peer = Peer(sock)
    for _ in range(2):
        peer.call("get", [1], timeout=0)

    assert len(read) == 2


def test_what_is_remembered_of_a_connection_is_bounded(sock):
    peer = Peer(sock)
    for number in range(1, 100):
        peer.call("get", False, number)
        peer.call("get", False, b"x" * number * 20)

    kept = peer.connection.calls
    assert 0 < len(kept) <= subject._KNOWN_CALLS_MAX
    assert all(len(message) <= subject._KNOWN_BYTES_MAX for message in kept)


@pytest.mark.parametrize("role", [Role.SUBMIT, Role.READ])
def test_a_call_that_was_refused_is_refused_again(sock, role):
    peer = Peer(sock, role)
    for _ in range(2):
        kind, error = peer.call("task_done")
        assert (kind, type(error)) == ("#ERROR", PermissionError)

    assert not peer.connection.calls
