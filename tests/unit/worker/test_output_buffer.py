"""Output on its way to the manager: whole at its beginning and end, and bounded."""

from __future__ import annotations

from dataclasses import dataclass

from svc.broker.outputs import MemoryOutputs
from svc.domain.field_bounds import OUTPUT_PIECES_MAX
from svc.domain.job import OutputPiece, OutputStream
from svc.worker import output_buffer
from svc.worker.output_buffer import OutputBuffer
from svc.worker.output_marks import AttemptName

KEEP = 1000
NAME = AttemptName("o", 0, 1)


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def kept(pieces: list[OutputPiece], length: int) -> bytes:
    """Return the stream with a dot for each byte that is missing."""
    text = bytearray(b"." * length)
    for piece in pieces:
        text[piece.offset : piece.offset + len(piece.data)] = piece.data
    return bytes(text)


def sent(buffer: OutputBuffer) -> list[OutputPiece]:
    pieces: list[OutputPiece] = []
    while (output := buffer.take()) is not None:
        pieces += output.pieces
    return pieces


def test_output_is_sent_as_it_comes_and_once():
    buffer = OutputBuffer(KEEP)
    stream = buffer.begin(NAME, OutputStream.STDOUT)
    buffer.add(stream, b"one\n")
    assert kept(sent(buffer), 4) == b"one\n"
    buffer.add(stream, b"two\n")
    (piece,) = sent(buffer)
    assert (piece.id, piece.attempt, piece.offset, piece.data) == ("o-0", 1, 4, b"two\n")
    assert sent(buffer) == []


def test_of_a_flood_the_beginning_and_the_end_arrive():
    clock = Clock()
    buffer, store = OutputBuffer(KEEP, clock), MemoryOutputs()
    stream = buffer.begin(NAME, OutputStream.STDOUT)
    text = b"".join(b"%07d\n" % number for number in range(5000))
    for at in range(0, len(text), 500):
        buffer.add(stream, text[at : at + 500])
        if at % 7000 == 0:
            clock.now += 0.1
            store.add(sent(buffer), KEEP)
    buffer.end(stream)
    store.add(sent(buffer), KEEP)
    found = kept(store.find("o-0", 1, 0, 0).pieces, len(text))
    assert found[:KEEP] == text[:KEEP]
    assert found[-KEEP:] == text[-KEEP:]
    assert len(found.replace(b".", b"")) <= 5 * KEEP


def test_a_stream_that_floods_is_sent_every_two_seconds_and_at_its_end():
    clock = Clock()
    buffer = OutputBuffer(KEEP, clock)
    stream = buffer.begin(NAME, OutputStream.STDOUT)
    buffer.add(stream, b"x" * 10 * KEEP)
    assert sent(buffer)
    buffer.add(stream, b"x")
    assert not sent(buffer)
    clock.now += 2.0
    assert sent(buffer)
    buffer.add(stream, b"x" * 10 * KEEP)
    assert sent(buffer)
    buffer.add(stream, b"the end")
    buffer.end(stream)
    assert sent(buffer)[-1].data == b"the end"


def test_without_a_manager_the_oldest_output_is_dropped_with_a_mark(monkeypatch):
    monkeypatch.setattr(output_buffer, "_ENDED_BYTES", 3 * KEEP)
    buffer = OutputBuffer(KEEP)
    for number in range(5):
        stream = buffer.begin(AttemptName("o", number, 1), OutputStream.STDOUT)
        buffer.add(stream, b"%d" % number * KEEP)
        buffer.end(stream)
    pieces = sent(buffer)
    assert [(piece.id, len(piece.data), piece.offset) for piece in pieces] == [
        ("o-0", 0, KEEP),
        ("o-1", 0, KEEP),
        ("o-2", KEEP, 0),
        ("o-3", KEEP, 0),
        ("o-4", KEEP, 0),
    ]
    assert buffer.dropped == 2 * KEEP


def test_very_many_small_pieces_take_several_requests(monkeypatch):
    monkeypatch.setattr(output_buffer, "_FLOOD_SECONDS", 0.0)
    buffer = OutputBuffer(KEEP)
    for number in range(10_000):
        stream = buffer.begin(AttemptName("o", number, 1), OutputStream.STDOUT)
        buffer.add(stream, b"x")
        if number % 2:
            buffer.end(stream)
    counts = []
    while (output := buffer.take()) is not None:
        counts.append(len(output.pieces))
    assert sum(counts) == 10_000
    assert max(counts) <= OUTPUT_PIECES_MAX


def test_output_of_many_running_attempts_is_bounded_too(monkeypatch):
    monkeypatch.setattr(output_buffer, "_RUNNING_BYTES", 5 * KEEP)
    monkeypatch.setattr(output_buffer, "_ENDED_BYTES", 2 * KEEP)
    buffer = OutputBuffer(KEEP)
    streams = [buffer.begin(AttemptName("o", number, 1), OutputStream.STDOUT) for number in range(20)]
    for stream in streams:
        buffer.add(stream, b"x" * KEEP)
    pieces = sent(buffer)
    assert sum(len(piece.data) for piece in pieces) == 7 * KEEP
    assert buffer.dropped == 13 * KEEP
    buffer.add(streams[-1], b"later")
    assert [(piece.id, piece.offset, piece.data) for piece in sent(buffer)] == [("o-19", KEEP, b"later")]
