"""Managers that write one log, with the faults of a cluster: one of them writes, and nothing is lost."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from random import Random

import pytest

from svc.errors import Deposed
from svc.server.journal.jetstream.frames import (
    HEADER_BYTES,
    Frame,
    FrameAssembler,
    FrameError,
    FrameKind,
    StoredFrame,
)
from svc.server.journal.jetstream.log import Unanswered
from svc.server.journal.jetstream.writer import FrameWriter
from tests.support.log_model import LogFaults, LogModel, ModelStream
from tests.support.virtual_time import run_virtual

FAULTS = LogFaults(lost=0.05, late=0.03, repeated=0.05, election=0.03, stale=0.5)
#: A frame of 200 bytes is four messages.
MESSAGE_MAX = HEADER_BYTES + 60
SECONDS = 30.0


@dataclass
class Run:
    """One simulated run: the log, and the answers that managers got.

    Attributes:
        acknowledged: the rows whose frames were acknowledged, each with the term and the place of its frame.
        terms: the terms whose first frame was acknowledged.
    """

    seed: int
    fenced: bool = True
    acknowledged: dict[int, tuple[int, int, int]] = field(default_factory=dict)
    terms: list[int] = field(default_factory=list)
    cancelled: int = 0
    deposed: int = 0
    rows: int = 0

    def __post_init__(self) -> None:
        self.random = Random(self.seed)
        self.stream = ModelStream(Random(self.seed + 1), FAULTS, fenced=self.fenced)

    async def story(self) -> None:
        """Let two managers write until the time is over, then end all faults."""
        managers = [self._manager(name, pace) for name, pace in (("a", 1.0), ("b", 1.5))]
        tasks = [asyncio.ensure_future(manager) for manager in managers]
        await asyncio.sleep(SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(30)  # late requests arrive

    async def _manager(self, name: str, pace: float) -> None:
        """Take over, write until deposed, wait, and so on; the other one does the same."""
        log = LogModel(self.stream, name, pace=pace)
        while True:
            await asyncio.sleep(self.random.uniform(0, 3))
            with suppress(Unanswered, Deposed):
                end, term = await self._read(log)
                nonce = self.random.getrandbits(64)
                writer = FrameWriter(log, term=term + 1, writer=nonce, end=end, message_max=MESSAGE_MAX)
                await writer.append(Frame(FrameKind.TERM))
                self.terms.append(term + 1)
                await self._write(writer, term + 1)

    async def _read(self, log: LogModel) -> tuple[int, int]:
        """Return the end of the log and the last term in it."""
        end, term = (await log.tail()).last, 0
        assembler = FrameAssembler(0)
        async with aclosing(log.follow(1)) as following:
            while (assembler.after or 0) < end:
                message = await anext(following)
                stored = assembler.add(message.sequence, message.data)
                term = stored.origin.term if stored else term
        return end, term

    async def _write(self, writer: FrameWriter, term: int) -> None:
        while True:
            self.rows += 1
            row = self.rows
            frame = Frame(FrameKind.COMMIT, [(row, self.random.randbytes(self.random.choice([8, 60, 200])))])
            patience = self.random.uniform(0, 1) if self.random.random() < 0.1 else None
            try:
                async with asyncio.timeout(patience):
                    position = await writer.append(frame)
            except TimeoutError:
                self.cancelled += 1
            except Deposed:
                self.deposed += 1
                raise
            else:
                self.acknowledged[row] = (term, position.first, position.last)
            await asyncio.sleep(self.random.expovariate(2))

    def frames(self) -> list[StoredFrame]:
        """Return the whole frames of the log; a message that does not belong there fails."""
        assembler = FrameAssembler(0)
        added = (assembler.add(number, message) for number, message in sorted(self.stream.messages.items()))
        return [stored for stored in added if stored]

    def check(self) -> None:
        """Check the promises of the fence."""
        frames = self.frames()
        began = [stored.origin.term for stored in frames if stored.frame.kind is FrameKind.TERM]
        assert began == sorted(set(began))
        assert set(self.terms) <= set(began)
        terms = [stored.origin.term for stored in frames]
        assert terms == sorted(terms), "a frame of an old term follows a later term"
        rows = [number for stored in frames for number, _ in stored.frame.rows]
        assert len(rows) == len(set(rows)), "a frame is in the log twice"
        places = {
            number: (stored.origin.term, stored.first, stored.last)
            for stored in frames
            for number, _ in stored.frame.rows
        }
        missing = {row: place for row, place in self.acknowledged.items() if places.get(row) != place}
        assert not missing, "acknowledged frames are not in the log, or not in their place"


def ran(seed: int, *, fenced: bool = True) -> Run:
    run = Run(seed, fenced)
    run_virtual(run.story())
    return run


@pytest.mark.parametrize("first", range(0, 1000, 125))
def test_one_manager_writes_at_a_time_and_each_acknowledged_frame_is_there_once(first):
    runs = [ran(seed) for seed in range(first, first + 125)]
    for run in runs:
        run.check()
    # The runs had the faults that they are for.
    assert sum(run.deposed for run in runs) > 50
    assert sum(run.stream.elections for run in runs) > 50
    assert sum(run.cancelled for run in runs) > 20
    assert sum(len(run.acknowledged) for run in runs) > 500


def is_noticed(run: Run) -> bool:
    try:
        run.check()
    except (AssertionError, FrameError):
        return True
    return False


def test_a_log_without_a_fence_is_noticed():
    assert sum(is_noticed(ran(seed, fenced=False)) for seed in range(20)) > 10


def test_a_run_is_decided_by_its_seed():
    one, other = ran(7), ran(7)
    assert one.stream.messages == other.stream.messages
    assert one.acknowledged == other.acknowledged
