"""The beginning of a term: when it waits for a silent log."""

from __future__ import annotations

import asyncio

import pytest

from svc.errors import Conflict
from svc.server.journal.jetstream.frames import Frame, FrameKind
from svc.server.journal.jetstream.log import LogFacts
from svc.server.journal.jetstream.replica import Replica
from svc.server.journal.jetstream.term import LeaderTerm
from svc.server.journal.jetstream.writer import FrameWriter
from tests.support.log_model import LogModel, ModelStream
from tests.support.memory_journals import MemoryMirror
from tests.support.virtual_time import run_virtual

SILENCE = 2.0


class OvertakenLog(LogModel):
    """A log on which another manager writes a frame just before our term begins."""

    other: FrameWriter | None = None

    async def facts(self) -> LogFacts:
        other, self.other = self.other, None
        if other is not None:
            await other.append(Frame(FrameKind.COMMIT))
        return await super().facts()


@pytest.mark.parametrize(
    ("free", "overtaken", "waits"),
    [(True, False, False), (True, True, True), (False, False, True), (False, True, True)],
)
def test_a_term_waits_for_a_silent_log_unless_it_was_free_and_nobody_has_written(free, overtaken, waits):
    async def story() -> float:
        stream, clock = ModelStream(), asyncio.get_running_loop().time
        other = FrameWriter(LogModel(stream, "b"), term=1, writer=11, end=0, message_max=10_000)
        await other.append(Frame(FrameKind.TERM))
        log = OvertakenLog(stream, "a")
        replica = Replica(log, MemoryMirror)
        replica.start()
        await replica.catch_up()
        began = clock()
        if overtaken:
            log.other = other
        term = LeaderTerm(log, replica, asyncio.get_running_loop().call_soon)
        await term.begin(SILENCE, free=free)
        term.end()
        assert term.number == 2
        return clock() - began

    seconds = run_virtual(story())
    assert seconds >= SILENCE if waits else seconds < 0.5


def test_a_term_does_not_begin_while_another_manager_writes_on():
    async def story() -> float:
        stream, clock = ModelStream(), asyncio.get_running_loop().time
        other = FrameWriter(LogModel(stream, "b"), term=1, writer=11, end=0, message_max=10_000)

        async def write_on() -> None:
            while True:
                await other.append(Frame(FrameKind.COMMIT))
                await asyncio.sleep(SILENCE / 4)

        await other.append(Frame(FrameKind.TERM))
        writing = asyncio.ensure_future(write_on())
        log = LogModel(stream, "a")
        replica = Replica(log, MemoryMirror)
        replica.start()
        await replica.catch_up()
        began = clock()
        term = LeaderTerm(log, replica, asyncio.get_running_loop().call_soon)
        with pytest.raises(Conflict, match="has written the journal for 15 s while the key"):
            await term.begin(SILENCE, patience=15.0)
        writing.cancel()
        await replica.stop()
        assert (term.number, (await log.tail()).last) == (0, other.end)
        return clock() - began

    assert 15.0 <= run_virtual(story()) < 15.0 + 2 * SILENCE
