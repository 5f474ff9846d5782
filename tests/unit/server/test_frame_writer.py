"""The writer of frames, with each answer of the log, and with none."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import pytest

from svc.errors import Deposed, JournalError
from svc.server.journal.jetstream.frames import HEADER_BYTES, Frame, FrameAssembler, FrameKind, StoredFrame
from svc.server.journal.jetstream.log import Fenced, Tail, Unanswered
from svc.server.journal.jetstream.writer import LAG_SECONDS, FrameWriter
from tests.support.log_model import LogModel, ModelStream
from tests.support.virtual_time import run_virtual

#: The fate of one append: the log sees it or not, and its client gets an answer or not.
LOST, UNHEARD, LATE = "lost", "unheard", "late"
MOST = HEADER_BYTES + 50


def row(number: int, size: int = 10) -> Frame:
    return Frame(FrameKind.COMMIT, [(number, b"x" * size)])


class OddLog(LogModel):
    """A log on which each of the next appends meets the next of `fates`; an empty one is usual."""

    def __init__(self, stream: ModelStream, name: str = "a") -> None:
        super().__init__(stream, name)
        self.fates: list[str] = []
        self.asked = 0

    async def append(self, message: bytes, *, expected: int, message_id: str) -> int:
        self.asked += 1
        fate = self.fates.pop(0) if self.fates else ""
        if fate == LATE:
            asyncio.get_running_loop().call_later(5, self._append_late, message, expected, message_id)
        if fate in (LATE, LOST):
            raise Unanswered
        number = await super().append(message, expected=expected, message_id=message_id)
        if fate == UNHEARD:
            raise Unanswered
        return number

    def _append_late(self, message: bytes, expected: int, message_id: str) -> None:
        with suppress(Fenced):
            self._stream.append(self._name, message, expected, message_id)


def writer_on(log: LogModel, end: int = 0, term: int = 1, nonce: int = 11) -> FrameWriter:
    return FrameWriter(log, term=term, writer=nonce, end=end, message_max=MOST)


def frames_of(stream: ModelStream) -> list[StoredFrame]:
    assembler = FrameAssembler(0)
    added = (assembler.add(number, message) for number, message in stream.messages.items())
    return [stored for stored in added if stored]


def rows_of(stream: ModelStream) -> list[int]:
    return [number for stored in frames_of(stream) for number, _ in stored.frame.rows]


def told(story: Callable[[ModelStream, OddLog], Coroutine[Any, Any, None]]) -> ModelStream:
    """Run *story* on a new log, and return the stream of it."""
    stream = ModelStream()
    run_virtual(story(stream, OddLog(stream)))
    return stream


def test_a_stored_message_tells_when_it_was_first_sent_also_if_a_later_try_or_call_finds_it():
    async def story(stream: ModelStream, log: OddLog) -> None:
        sent: list[float] = []
        writer = FrameWriter(log, term=1, writer=11, end=0, message_max=MOST, stored=sent.append)
        clock = asyncio.get_running_loop().time
        log.fates = [LOST, LOST]
        first = clock()
        await writer.append(row(1))
        assert sent == [first]
        assert clock() > first

        log.fates = [LOST] * 1000
        second = clock()
        with suppress(TimeoutError):
            await asyncio.wait_for(writer.append(row(2)), 3)
        log.fates = []
        third = clock()
        await writer.append(row(3))
        assert sent[:2] == [first, second]
        assert sent[2] > third

    assert rows_of(told(story)) == [1, 2, 3]


@pytest.mark.parametrize("fates", [[], [LOST], [UNHEARD], [LATE], [LOST, LATE, UNHEARD], ["", UNHEARD, LOST]])
def test_a_frame_is_in_the_log_once_and_whole_whatever_is_lost(fates):
    async def story(stream: ModelStream, log: OddLog) -> None:
        writer = writer_on(log)
        log.fates = list(fates)
        first = await writer.append(row(1, size=120))
        assert await writer.append(row(2)) == (first.last + 1, first.last + 1)
        await asyncio.sleep(60)

    stream = told(story)
    assert rows_of(stream) == [1, 2]
    assert len(stream.messages) == 4


def test_an_append_whose_answer_was_lost_is_not_sent_again():
    async def story(stream: ModelStream, log: OddLog) -> None:
        log.fates = [UNHEARD]
        await writer_on(log).append(row(1))
        assert log.asked == 1

    told(story)


def test_a_writer_whom_another_has_followed_is_deposed_for_good_and_writes_nothing():
    async def story(stream: ModelStream, log: OddLog) -> None:
        old = writer_on(log)
        await old.append(row(1))
        new = writer_on(LogModel(stream, "b"), end=1, term=2, nonce=12)
        await new.append(Frame(FrameKind.TERM))
        for _ in range(2):
            with pytest.raises(Deposed, match="in term 2: message 2"):
                await old.append(row(2))
        assert log.asked == 2

    stream = told(story)
    assert stream.writes == [("a", 1), ("b", 2)]


def test_a_frame_that_was_written_before_the_other_came_is_not_acknowledged_by_the_deposed_writer():
    async def story(stream: ModelStream, log: OddLog) -> None:
        old = writer_on(log)
        log.fates = [UNHEARD]
        waiting = asyncio.ensure_future(old.append(row(1)))
        await stream.wait_message(1)
        stream.append("b", b"of another", 1, "b")
        with pytest.raises(Deposed, match="message 2"):
            await waiting

    assert told(story).last == 2


def test_of_two_writers_of_one_term_one_is_deposed():
    async def story(stream: ModelStream, log: OddLog) -> None:
        writers = [writer_on(log), writer_on(LogModel(stream, "b"), nonce=12)]
        appends = [writer.append(Frame(FrameKind.TERM)) for writer in writers]
        outcomes = await asyncio.gather(*appends, return_exceptions=True)
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Deposed", "FramePosition"]

    assert told(story).last == 1


def test_a_cancelled_frame_is_finished_before_the_next_one():
    async def story(stream: ModelStream, log: OddLog) -> None:
        writer = writer_on(log)
        log.fates = ["", *[LOST] * 50]
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await writer.append(row(1, size=120))
        assert stream.last == 1
        log.fates = []
        position = await writer.append(row(2))
        assert position.first == 4

    assert rows_of(told(story)) == [1, 2]


def test_a_frame_that_waits_for_its_turn_and_is_cancelled_is_not_written():
    async def story(stream: ModelStream, log: OddLog) -> None:
        writer = writer_on(log)
        log.fates = [LOST] * 5
        first, second, third = (asyncio.ensure_future(writer.append(row(number))) for number in (1, 2, 3))
        await asyncio.sleep(0.001)
        second.cancel()
        await asyncio.gather(first, third)

    assert rows_of(told(story)) == [1, 3]


def test_frames_are_written_in_the_order_of_the_calls():
    async def story(stream: ModelStream, log: OddLog) -> None:
        writer = writer_on(log)
        log.fates = [LATE, UNHEARD, LOST]
        await asyncio.gather(*(writer.append(row(number)) for number in range(20)))

    assert rows_of(told(story)) == list(range(20))


class Lagging(OddLog):
    """A log that tells an old end for `seconds`, and then the right one."""

    seconds = 0.0

    async def append(self, message: bytes, *, expected: int, message_id: str) -> int:
        if asyncio.get_running_loop().time() < self.seconds:
            raise Fenced(0)
        return await super().append(message, expected=expected, message_id=message_id)

    async def tail(self) -> Tail:
        if asyncio.get_running_loop().time() < self.seconds:
            return Tail(0, None)
        return await super().tail()


@pytest.mark.parametrize(("seconds", "lost"), [(LAG_SECONDS - 2, False), (LAG_SECONDS + 2, True)])
def test_a_log_that_tells_an_old_end_lags_or_has_lost_its_end(seconds, lost):
    async def story() -> None:
        stream = ModelStream()
        log = Lagging(stream)
        writer = writer_on(log)
        await writer.append(row(1))
        log.seconds = asyncio.get_running_loop().time() + seconds
        if lost:
            with pytest.raises(JournalError, match="ends with message 0, and message 1 was acknowledged"):
                await writer.append(row(2))
        else:
            await writer.append(row(2))
            assert rows_of(stream) == [1, 2]

    run_virtual(story())


def test_a_frame_that_is_too_large_changes_nothing():
    async def story(stream: ModelStream, log: OddLog) -> None:
        writer = FrameWriter(log, term=1, writer=1, end=0, message_max=HEADER_BYTES + 1)
        with pytest.raises(ValueError, match="are the most"):
            await writer.append(row(1, size=1 << 17))
        await writer.append(Frame(FrameKind.TERM))

    assert [stored.origin.number for stored in frames_of(told(story))] == [0]
