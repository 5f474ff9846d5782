"""What a waiting job takes in memory, with a key or a due time of its own, also after a restart."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from svc.broker.host import QueueHost
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.job import NewChunk, Terms
from svc.domain.limits import Limits
from svc.domain.members import Member
from svc.server.journal import SqliteJournal
from tests.support.clock import FakeClock

JOBS = 10_000
#: As many as `svc submit --from` has in a frame.
FRAME = 1000
BODY = b"\x92\x91\xcd\x03\xe8\x80"
#: Bytes of a job, at most: of one with a key, and of any other.
KEYED, OTHERS = 300, 100
Shape = Callable[[int], NewChunk]


def keyed(number: int, delay: float = 0.0) -> NewChunk:
    return NewChunk(number, Terms("m:f"), [BODY], delay, f"nightly-2026-11-22-{number:07}")


def delayed(number: int) -> NewChunk:
    return NewChunk(number, Terms("m:f"), [BODY], 3600.0 + number / 1000)


def keyed_and_delayed(number: int) -> NewChunk:
    return keyed(number, 3600.0 + number / 1000)


def mixed(number: int) -> NewChunk:
    """Every third job has a key, every third a delay, and the others neither, in turns."""
    return (keyed, delayed, plain)[number % 3](number)


def plain(number: int) -> NewChunk:
    return NewChunk(number, Terms("m:f"), [BODY])


SHAPES: dict[Shape, int] = {
    plain: OTHERS,
    keyed: KEYED,
    delayed: OTHERS,
    keyed_and_delayed: KEYED,
    mixed: KEYED,
}


def opened(folder: Path) -> QueueHost:
    journal = SqliteJournal.open(folder / "journal", "os")
    return QueueHost(journal, clock=FakeClock(), limits=Limits(max_queue_jobs=2 * JOBS))


def submit(host: QueueHost, first: int, count: int, shape: Shape) -> None:
    replies: list[r.Reply] = []
    chunks = [shape(number) for number in range(first, first + count)]
    host.call([c.Submit("o", chunks)], Member(), replies.extend)
    host.turn()
    assert replies == [r.Accepted([])]


@contextmanager
def traced() -> Iterator[Callable[[], int]]:
    """Yield a function that returns the bytes that were allocated since, and are still held."""
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]

    def held() -> int:
        gc.collect()
        return tracemalloc.get_traced_memory()[0] - before

    try:
        yield held
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__)
def test_a_waiting_job_takes_no_more_bytes_than_its_bound_also_after_a_restart(shape, tmp_path):
    host = opened(tmp_path)
    submit(host, 0, 2, shape)  # these make the things that all share
    with traced() as held:
        for first in range(2, JOBS, FRAME):
            submit(host, first, min(FRAME, JOBS - first), shape)
        each = held() / JOBS
    host.close()
    with traced() as held:
        again = opened(tmp_path)
        recovered = held() / JOBS
    counts = again.state.ledger.counts["default"]
    again.close()

    assert counts.submitted == JOBS
    assert each <= SHAPES[shape]
    assert recovered <= SHAPES[shape]
