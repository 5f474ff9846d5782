"""Messages are cut from the stream of bytes as they were sent, however it was delivered."""

from __future__ import annotations

import socket
import threading
import time
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
    return time.monotonic() + 10.0


def test_messages_that_come_together_are_told_apart(ends):
    stream, peer = ends
    peer.sendall(with_header(b"one") + with_header(b"") + with_header(b"three"))

    assert [stream.receive(soon()) for _ in range(3)] == [b"one", b"", b"three"]


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
