"""Messages are cut from the stream of bytes as they were sent, however it was delivered."""

from __future__ import annotations

import random
import socket
import threading
import time
import tracemalloc
from collections.abc import Iterator

import pytest

from svc.errors import BadRequest
from svc.wire import HEADER, LONG_HEADER, Stream, with_header


@pytest.fixture
def ends() -> Iterator[tuple[Stream, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Stream(ours), theirs


def soon() -> float:
    return time.monotonic() + 30.0


def test_messages_that_come_together_are_told_apart(ends):
    stream, peer = ends
    peer.sendall(with_header(b"one") + with_header(b"") + with_header(b"three"))

    assert [bytes(stream.receive(soon())) for _ in range(3)] == [b"one", b"", b"three"]


def test_a_message_that_comes_byte_by_byte_is_put_together(ends):
    stream, peer = ends
    message = with_header(b"slowly") + with_header(b"next")

    def trickle() -> None:
        for index in range(len(message)):
            peer.sendall(message[index : index + 1])

    sender = threading.Thread(target=trickle)
    sender.start()
    assert stream.receive(soon()) == b"slowly"
    assert stream.receive(soon()) == b"next"
    sender.join()


def test_a_message_larger_than_any_buffer_comes_whole_with_the_next_behind_it(ends):
    stream, peer = ends
    large = bytes(range(256)) * 20_000
    sender = threading.Thread(target=peer.sendall, args=(with_header(large) + with_header(b"next"),))
    sender.start()

    assert stream.receive(soon()) == large
    assert stream.receive(soon()) == b"next"
    sender.join()


def test_messages_of_all_sizes_come_whole_in_whatever_pieces_they_are_delivered(ends):
    stream, peer = ends
    chance = random.Random(5)
    messages = [chance.randbytes(chance.choice((0, 3, 900, 70_000, 300_000, 3_000_000))) for _ in range(60)]
    sent = memoryview(b"".join(map(with_header, messages)))

    def deliver() -> None:
        place = 0
        while place < len(sent):
            size = chance.choice((1, 5, 4_096, 65_536, 1_000_000))
            peer.sendall(sent[place : place + size])
            place += size

    sender = threading.Thread(target=deliver)
    sender.start()
    assert all(stream.receive(soon()) == message for message in messages)
    sender.join()


def test_what_comes_while_a_message_is_sent_is_read_before_what_comes_after_it(ends):
    stream, peer = ends
    stream.allow(soon())
    before, behind = b"begun" * 20_000, b"later" * 20_000
    message = with_header(before)
    peer.sendall(with_header(b"first") + message[:7])
    assert stream.receive(soon()) == b"first"

    def answer() -> None:
        peer.sendall(message[7:])
        left = len(LARGE)
        while left:
            left -= len(peer.recv(left))
        peer.sendall(with_header(behind))

    thread = threading.Thread(target=answer)
    thread.start()
    stream.send(LARGE)
    assert stream.receive(soon()) == before
    assert stream.receive(soon()) == behind
    thread.join(30.0)


def test_a_length_that_is_only_announced_takes_no_memory(ends):
    stream, peer = ends
    peer.sendall(HEADER.pack(100_000_000) + b"a little")
    tracemalloc.start()
    with pytest.raises(TimeoutError):
        stream.receive(time.monotonic() + 0.05)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_the_memory_of_a_very_large_message_is_not_kept_for_the_next(ends):
    stream, peer = ends
    sender = threading.Thread(target=peer.sendall, args=(LARGE + with_header(b"next"),))
    tracemalloc.start()
    sender.start()
    assert len(stream.receive(soon())) == len(LARGE) - HEADER.size
    sender.join()
    assert stream.receive(soon()) == b"next"
    peer.sendall(with_header(b"small"))
    assert stream.receive(soon()) == b"small"
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert kept < 1_000_000


def test_the_long_form_of_a_header_is_understood(ends):
    stream, peer = ends
    peer.sendall(HEADER.pack(-1) + LONG_HEADER.pack(4) + b"long")

    assert stream.receive(soon()) == b"long"


@pytest.mark.parametrize(
    "header",
    [HEADER.pack(-2), HEADER.pack(0x7FFFFFFF), HEADER.pack(-1) + LONG_HEADER.pack(1 << 62)],
    ids=["negative", "too large", "far too large"],
)
def test_an_impossible_length_is_refused_before_anything_is_read_for_it(ends, header):
    stream, peer = ends
    peer.sendall(header)

    with pytest.raises(BadRequest, match="announced a message of"):
        stream.receive(soon())


@pytest.mark.parametrize("sent", [b"", b"\0\0", with_header(b"half")[:-2]], ids=["none", "header", "body"])
def test_an_end_within_a_message_is_an_error(ends, sent):
    stream, peer = ends
    peer.sendall(sent)
    peer.close()

    with pytest.raises(EOFError):
        stream.receive(soon())


def test_nothing_is_read_after_the_deadline(ends):
    stream, peer = ends
    peer.sendall(with_header(b"late"))

    with pytest.raises(TimeoutError):
        stream.receive(time.monotonic())


LARGE = with_header(bytes(range(256)) * 80_000)


def answering(peer: socket.socket) -> threading.Thread:
    """Send a large message, then read one: a manager whose answers nobody reads does that."""

    def answer() -> None:
        peer.sendall(LARGE)
        left = len(LARGE)
        while left:
            left -= len(peer.recv(left))

    thread = threading.Thread(target=answer)
    thread.start()
    return thread


def test_two_sides_that_send_at_a_time_do_not_wait_for_each_other_for_ever(ends):
    stream, peer = ends
    thread = answering(peer)
    stream.allow(soon())

    stream.send(LARGE)

    assert stream.receive(soon()) == LARGE[HEADER.size :]
    thread.join(30.0)
    assert not thread.is_alive()


def test_a_long_message_is_given_up_at_the_deadline(ends):
    stream, _ = ends
    stream.allow(time.monotonic() + 0.05)

    with pytest.raises(TimeoutError, match="deadline"):
        stream.send(LARGE)


def test_a_long_message_to_a_peer_that_leaves_is_an_error(ends):
    stream, peer = ends
    stream.allow(soon())
    thread = threading.Thread(target=lambda: (peer.recv(1000), peer.shutdown(socket.SHUT_WR)))
    thread.start()

    with pytest.raises((EOFError, OSError)):
        stream.send(LARGE)

    thread.join(30.0)
