"""Framing and buffers of one connection, over a real TCP socket."""

from __future__ import annotations

import socket
import struct

import pytest

from svc import wire_handshake as handshake
from svc.server import connection as subject
from svc.server.connection import Connection, PeerGone, Stage
from svc.wire import MESSAGE_BYTES_MAX, with_header


@pytest.fixture
def ends():
    """A connection that serves, and its peer's socket, which has read the challenge."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    connection = Connection(accepted, ("peer", 1))
    connection.start()
    (length,) = struct.unpack("!i", peer.recv(4))
    assert peer.recv(length) == handshake.CHALLENGE + connection.challenge
    connection.stage = Stage.SERVING
    yield connection, peer
    connection.close()
    peer.close()


def received(connection: Connection, count: int | None = 1) -> list[bytes]:
    """Return *count* messages, or as many as there are; something is on its way already."""
    connection.sock.settimeout(None)
    connection.sock.recv(1, socket.MSG_PEEK)
    connection.sock.setblocking(False)
    found = [bytes(message) for message in connection.receive()]
    assert count is None or len(found) == count
    return found


def test_a_message_arrives(ends):
    connection, peer = ends
    peer.sendall(with_header(b"hello"))

    assert received(connection) == [b"hello"]


def test_pipelined_messages_arrive_in_order(ends):
    connection, peer = ends
    peer.sendall(b"".join(with_header(b"%d" % number) for number in range(9)))

    assert received(connection, 9) == [b"%d" % number for number in range(9)]


def test_an_empty_message_is_a_message(ends):
    connection, peer = ends
    peer.sendall(with_header(b""))

    assert received(connection) == [b""]


def test_a_message_may_come_byte_by_byte(ends):
    connection, peer = ends
    message = with_header(b"abc") + with_header(b"d")
    found = []
    for place in range(len(message)):
        peer.sendall(message[place : place + 1])
        whole = place in (6, len(message) - 1)
        found += received(connection, 1 if whole else 0)

    assert found == [b"abc", b"d"]


@pytest.mark.parametrize(
    "sent",
    [
        struct.pack("!i", -1),
        struct.pack("!iQ", -1, 3) + b"abc",
        struct.pack("!iQ", -1, MESSAGE_BYTES_MAX) + b"x" * 100_000,
        struct.pack("!iQ", -1, 1 << 31),
    ],
)
def test_a_header_for_2_gib_and_more_ends_the_connection_whatever_follows(ends, sent):
    """A body after such a header was once gathered in small pieces: 64 MB took 3.5 s."""
    connection, peer = ends
    peer.sendall(sent)

    with pytest.raises(PeerGone, match="limit"):
        received(connection)


@pytest.mark.parametrize(
    "header",
    [
        struct.pack("!i", MESSAGE_BYTES_MAX + 1),
        struct.pack("!i", -2),
        struct.pack("!iQ", -1, 1 << 63),
        struct.pack("!iQ", -1, MESSAGE_BYTES_MAX + 1),
    ],
)
def test_a_message_over_the_limit_ends_the_connection_before_it_is_read(ends, header):
    connection, peer = ends
    peer.sendall(header)

    with pytest.raises(PeerGone, match="limit"):
        received(connection)


def test_a_stranger_may_say_little(ends):
    """Before the handshake is done nobody can make us hold more than 256 bytes."""
    connection, peer = ends
    connection.stage = Stage.CHALLENGED
    peer.sendall(struct.pack("!i", handshake.MESSAGE_BYTES_MAX + 1))

    with pytest.raises(PeerGone, match="256"):
        received(connection)


def test_what_came_before_a_bad_message_is_delivered(ends):
    connection, peer = ends
    peer.sendall(with_header(b"good") + struct.pack("!i", -5))
    connection.sock.settimeout(None)
    connection.sock.recv(1, socket.MSG_PEEK)
    connection.sock.setblocking(False)
    messages = connection.receive()

    assert bytes(next(messages)) == b"good"
    with pytest.raises(PeerGone):
        next(messages)


def test_the_end_of_the_peer_is_noticed(ends):
    connection, peer = ends
    peer.close()

    with pytest.raises(PeerGone, match="closed"):
        received(connection)


def test_a_reset_by_the_peer_is_noticed(ends):
    connection, peer = ends
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()

    with pytest.raises(PeerGone):
        list(connection.receive())


def test_what_the_peer_does_not_read_yet_waits_and_arrives_whole(ends):
    connection, peer = ends
    payload = bytes(range(256)) * 40_000
    connection.send(payload)
    connection.send(b"end")
    assert connection.unsent
    got = bytearray()
    while len(got) < len(payload) + 3:
        got += peer.recv(1 << 20)
        connection.flush()

    assert bytes(got) == payload + b"end"
    assert not connection.unsent


def test_a_peer_that_does_not_read_is_cut_off(ends, monkeypatch):
    monkeypatch.setattr(subject, "WRITE_BYTES_MAX", 1 << 20)
    connection, _ = ends

    def send_on() -> None:
        for _ in range(100):
            connection.send(b"x" * (1 << 20))

    with pytest.raises(PeerGone, match="does not read"):
        send_on()


def test_one_peer_takes_at_most_its_share_of_a_turn(ends, monkeypatch):
    monkeypatch.setattr(subject, "_READ_BYTES", 100)
    monkeypatch.setattr(subject, "READ_BYTES_MAX", 300)
    connection, peer = ends
    peer.sendall(with_header(b"x" * 996) * 2)

    assert len(received(connection, 0)) == 0
    rest = [bytes(message) for _ in range(7) for message in connection.receive()]

    assert rest == [b"x" * 996] * 2


def test_close_may_be_called_twice(ends):
    connection, _ = ends
    connection.close()
    connection.close()

    assert connection.closed


def waiting(connection: Connection) -> bool:
    """Return whether there is something to read."""
    try:
        return bool(connection.sock.recv(1, socket.MSG_PEEK))
    except BlockingIOError:
        return False


@pytest.mark.parametrize("first", [3, 100, 300_000])
def test_a_large_message_that_comes_in_pieces_is_whole_and_so_is_what_follows_it(ends, first):
    connection, peer = ends
    large = bytes(range(256)) * 8_000
    stream = with_header(b"before") + with_header(large) + with_header(b"after")
    found: list[bytes] = []
    for start, stop in ((0, first), (first, 1_500_000)):
        peer.sendall(stream[start:stop])
        while waiting(connection):
            found += received(connection, None)
    peer.sendall(stream[1_500_000:])
    while len(found) < 3:
        found += received(connection, None)

    assert found == [b"before", large, b"after"]
    assert connection.buffered == 0


def test_what_follows_a_large_message_waits_while_the_connection_is_paused(ends):
    connection, peer = ends
    large = b"x" * 1_000_000
    peer.sendall(with_header(large) + with_header(b"a") + with_header(b"b"))
    found: list[bytes] = []
    while not found:
        for message in connection.receive():
            found.append(bytes(message))
            connection.member.outstanding = subject.OUTSTANDING_MAX
    assert found == [large]
    connection.member.outstanding = 0
    found += [bytes(message) for message in connection.left_over()]

    assert found == [large, b"a", b"b"]


def test_a_message_that_is_only_announced_takes_no_more_than_a_few_times_what_has_come(ends):
    connection, peer = ends
    peer.sendall(struct.pack("!i", MESSAGE_BYTES_MAX) + b"x" * 600_000)
    while waiting(connection):
        received(connection, 0)

    assert 600_000 < connection.buffered <= 5 * 600_000
