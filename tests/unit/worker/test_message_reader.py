"""The messages of a consumer's pipe, and whatever else its task may write there."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from multiprocessing.connection import Connection

import msgspec
import pytest

from svc.worker.message_reader import READ_BYTES_MAX, MessageReader
from svc.worker.orders import MESSAGE_MAX


class Pipe:
    """A pipe, its reader, and all that the reader has given away."""

    def __init__(self) -> None:
        self.ours, self.theirs = multiprocessing.get_context("spawn").Pipe()
        self.reader = MessageReader(self.ours)
        self.taken: list[tuple[bytes, bytes]] = []

    def write(self, content: bytes) -> None:
        assert os.write(self.theirs.fileno(), content) == len(content)

    def read(self) -> list[tuple[bytes, bytes]]:
        self.taken = []
        self.reader.read(self._take)
        return self.taken

    def _take(self, kind: bytes, body: bytes) -> bool:
        self.taken.append((kind, body))
        if kind == b"j":
            msgspec.msgpack.decode(body)
        if kind == b"u":
            body.decode()
        return kind in (b"a", b"j", b"u")


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.ours.close()
    made.theirs.close()


def framed(content: bytes) -> bytes:
    """Return a message as `Connection.send_bytes` writes it."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    with ours, theirs:
        theirs.send_bytes(content)
        return os.read(ours.fileno(), 1 << 16)


def test_messages_are_given_in_their_order(pipe: Pipe) -> None:
    pipe.theirs.send_bytes(b"a1")
    pipe.theirs.send_bytes(b"a")
    assert pipe.read() == [(b"a", b"1"), (b"a", b"")]
    assert pipe.read() == []
    assert pipe.reader.open


@pytest.mark.parametrize("count", [1, 3, 4, 5])
def test_a_part_of_a_message_is_not_waited_for(pipe: Pipe, count: int) -> None:
    whole = framed(b"a12345")
    pipe.write(whole[:count])
    assert pipe.read() == []
    assert pipe.reader.open
    pipe.write(whole[count:] + whole)
    assert pipe.read() == [(b"a", b"12345")] * 2


def test_a_message_that_is_longer_than_one_read_comes_whole(pipe: Pipe) -> None:
    body = os.urandom(READ_BYTES_MAX // 2)
    sender = multiprocessing.get_context("fork").Process(target=pipe.theirs.send_bytes, args=(b"a" + body,))
    sender.start()
    while not pipe.read():
        assert pipe.reader.open
    sender.join()
    assert pipe.taken == [(b"a", body)]


@pytest.mark.parametrize(
    "junk",
    [
        b"\xff\xff\xff\xff",
        b"\xff" * 5000,
        (MESSAGE_MAX + 1).to_bytes(4, "big"),
        framed(b""),
        framed(b"?"),
        framed(b"j\xc1"),
        framed(b"j"),
        framed(b"u\xff"),
    ],
)
def test_what_no_consumer_sends_is_damage_and_nothing_is_read_after_it(pipe: Pipe, junk: bytes) -> None:
    pipe.theirs.send_bytes(b"a1")
    pipe.write(junk)
    pipe.theirs.send_bytes(b"a2")
    assert pipe.read()[0] == (b"a", b"1")
    assert (b"a", b"2") not in pipe.taken
    assert (pipe.reader.open, pipe.reader.damaged) == (False, True)
    assert pipe.read() == []


@pytest.mark.parametrize("stray", [b"\0", b"\0\0", b"\0\0\0", b"x", b"\1\2\3"])
def test_a_stray_byte_becomes_damage_with_the_messages_behind_it(pipe: Pipe, stray: bytes) -> None:
    pipe.write(stray)
    for _ in range(5):
        pipe.theirs.send_bytes(b"a1")
    pipe.read()
    assert pipe.reader.damaged


def test_a_pipe_that_is_written_without_end_does_not_keep_its_reader(pipe: Pipe) -> None:
    class Endless(Connection):
        def poll(self, timeout: float | None = 0.0) -> bool:
            pipe.write(framed(b"a" * 1000))
            return super().poll(timeout)

    reader = MessageReader(Endless(os.dup(pipe.ours.fileno())))
    reader.read(lambda _kind, _body: True)
    assert reader.open


def test_an_end_that_is_closed_is_no_damage(pipe: Pipe) -> None:
    pipe.theirs.send_bytes(b"a1")
    pipe.theirs.close()
    assert pipe.read() == [(b"a", b"1")]
    assert pipe.read() == []
    assert (pipe.reader.open, pipe.reader.damaged) == (False, False)
