"""Output in the pipes of a consumer is that of the attempt in its slot, or of the one that a mark names."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator

import pytest

from svc.domain.job import Terms
from svc.domain.replies import Delivery
from svc.domain.retry import RetryPolicy
from svc.worker.attempt_limits import AttemptLimits
from svc.worker.capture import CapturePipes
from svc.worker.output_marks import ENDED, AttemptName, mark, new_secret
from svc.worker.output_reader import OutputReader
from svc.worker.slot import Slot, encoded_names
from tests.support.workers import until

CONTEXT = multiprocessing.get_context("spawn")
SECRET = new_secret()
LEASE = Delivery(7, "origin", 0, Terms("m:f"), [b"", b""])

Write = Callable[[bytes], None]
#: The offset and the content of each piece, by job.
Pieces = dict[str, list[tuple[int, bytes]]]


@pytest.fixture
def slot() -> Slot:
    slot = Slot(CONTEXT)
    slot.begin(LEASE, 1, RetryPolicy(), AttemptLimits(), encoded_names(LEASE.terms), False)
    return slot


@pytest.fixture
def reader(slot: Slot) -> Iterator[tuple[OutputReader, Write]]:
    reader = OutputReader(1000, lambda: None)
    stdout, to_stdout = CONTEXT.Pipe(duplex=False)
    stderr, to_stderr = CONTEXT.Pipe(duplex=False)
    reader.add(CapturePipes(stdout, stderr, SECRET), slot)
    reader.start()
    with stdout, stderr:
        with to_stdout, to_stderr:
            yield reader, lambda text: _written(to_stdout.fileno(), text)
        reader.finish()  # the consumer has ended


def _written(descriptor: int, text: bytes) -> None:
    assert os.write(descriptor, text) == len(text)


def taken(reader: OutputReader, count: int) -> Pieces:
    """Return the pieces that come, once they have *count* bytes together."""
    found: Pieces = {}

    def arrived() -> bool:
        while (output := reader.take()) is not None:
            for piece in output.pieces:
                found.setdefault(piece.id, []).append((piece.offset, piece.data))
        return sum(len(data) for pieces in found.values() for _, data in pieces) >= count

    until(arrived, 30)
    return found


def ended(number: int) -> bytes:
    return mark(SECRET, ENDED, AttemptName.of(LEASE, number).encoded())


def test_output_behind_the_mark_of_an_attempt_goes_on_where_the_attempt_has_ended(slot, reader):
    """A process that it has left behind writes until it is ended, before the next job."""
    read, write = reader
    slot.claim(0, 1, 1.0, 0.0, False)
    write(b"parent\n" + ended(0))
    assert taken(read, 7) == {"origin-0": [(0, b"parent\n")]}
    write(b"child\n")
    assert taken(read, 6) == {"origin-0": [(7, b"child\n")]}
    slot.claim(1, 0, 2.0, 0.0, False)
    write(b"next\n")
    assert taken(read, 5) == {"origin-1": [(0, b"next\n")]}
