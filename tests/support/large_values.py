"""Large values of a queue under test: put piece by piece, and read back."""

from __future__ import annotations

from collections.abc import Sequence

from svc.broker.base import Broker
from svc.domain import commands as c
from svc.domain.job import NewChunk, Terms
from svc.domain.names import LARGE
from svc.domain.replies import Delivery
from tests.support.asking import ack_of, record
from tests.support.engines import LIMITS, Engine

PIECE = LIMITS.piece_bytes
ACCEPT = ["plain", LARGE]
VALUE = bytes(range(256)) * 10  # 2,560 bytes, which are three pieces


def pieces(data: bytes) -> Sequence[tuple[int, bytes]]:
    return [(start, data[start : start + PIECE]) for start in range(0, len(data), PIECE)]


def put(queue: Broker, data: bytes = VALUE, *, origin: str = "o", number: int = 0, place: int = 1) -> int:
    """Store a large argument; return how many bytes of it are stored."""
    return queue.store(
        [c.StorePiece(origin, number, place, len(data), start, part) for start, part in pieces(data)]
    )


def put_result(queue: Broker, delivery: Delivery, data: bytes = VALUE) -> int:
    return queue.store(
        [
            c.StoreResultPiece(delivery.token, delivery.first, len(data), start, part)
            for start, part in pieces(data)
        ]
    )


def large_chunk(*sizes: int, number: int = 0, key: str = "") -> NewChunk:
    return NewChunk(number, Terms("m:f", codec=LARGE, large=True), [b"body"], key=key, large=list(sizes))


def submit(queue: Broker, *sizes: int, origin: str = "o") -> str:
    """Submit a job with large arguments of these sizes; return the code of its refusal."""
    notes = queue.submit(origin, [large_chunk(*sizes)])
    return notes[0].code if notes else ""


def argument(queue: Broker, delivery: Delivery, size: int = len(VALUE), place: int = 1) -> bytes:
    asked = [c.FetchArgument(delivery.token, delivery.first, place, at) for at in range(0, size, PIECE)]
    return b"".join(queue.fetch(asked))


def result(queue: Broker, job: str = "o-0", size: int = len(VALUE)) -> bytes:
    return b"".join(queue.fetch([c.FetchResult(job, at) for at in range(0, size, PIECE)]))


def acked(queue: Broker, delivery: Delivery) -> None:
    ack = ack_of(delivery)
    record(queue, c.Ack(ack.token, ack.first, ack.results, ack.seconds, [delivery.first]))


def kept(engine: Engine) -> int:
    """Return the bytes that all large values take."""
    return engine.inside(lambda host: host.state.ledger.large.size)


def wait_unclaimed(engine: Engine) -> None:
    """Let the time pass in which a value without a job is kept."""
    for _ in range(8):
        engine.advance(LIMITS.unclaimed_seconds / 4)
