"""A replica tells those who wait for it that it follows the stream no more."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Sequence

import pytest

from svc.domain.events import AnyEvent
from svc.errors import JournalError
from svc.server.journal import SqliteJournal
from svc.server.journal.jetstream.frames import Frame, FrameKind
from svc.server.journal.jetstream.log import LogMessage
from svc.server.journal.jetstream.replica import Replica
from svc.server.journal.jetstream.writer import FrameWriter
from svc.server.journal.rows import EncodedRow, encoded_rows
from tests.support.journals import EVENTS
from tests.support.log_model import LogModel, ModelStream
from tests.support.memory_journals import MemoryMirror
from tests.support.virtual_time import run_virtual


class BrokenReplica(Replica):
    """A replica with a fault."""

    def take(self, messages: Sequence[LogMessage]) -> None:
        raise ZeroDivisionError(str(messages[0].sequence))


def test_nobody_waits_for_a_replica_that_has_ended_by_an_error_of_its_own():
    async def story() -> None:
        log = LogModel(ModelStream(), "a")
        writer = FrameWriter(log, term=1, writer=11, end=0, message_max=10_000)
        await writer.append(Frame(FrameKind.TERM))
        replica = BrokenReplica(log, MemoryMirror)
        replica.start()
        for _ in range(2):
            with pytest.raises(JournalError, match="ZeroDivisionError"):
                await replica.catch_up()

    run_virtual(story())


class HeldLog(LogModel):
    """A log of which no message comes after number `held`."""

    held = 0

    async def follow(self, start: int) -> AsyncGenerator[LogMessage]:
        async for message in super().follow(start):
            while message.sequence > self.held:  # noqa: ASYNC110 - virtual time
                await asyncio.sleep(0.01)
            yield LogMessage(message.sequence, message.data)


def test_a_replica_has_caught_up_once_it_has_all_that_was_there_when_it_began():
    async def story() -> None:
        stream = ModelStream()
        writer = FrameWriter(LogModel(stream, "a"), term=1, writer=11, end=0, message_max=10_000)
        await writer.append(Frame(FrameKind.TERM))
        await writer.append(Frame(FrameKind.COMMIT))
        log = HeldLog(stream, "b")
        replica = Replica(log, MemoryMirror)
        replica.start()
        assert not replica.caught_up
        await asyncio.sleep(1)
        await writer.append(Frame(FrameKind.COMMIT))
        log.held = 1
        await asyncio.sleep(1)
        assert (replica.position, replica.caught_up) == (1, False)
        log.held = 2
        await asyncio.sleep(1)
        assert (replica.position, replica.caught_up) == (2, True)

    run_virtual(story())


def test_a_replica_of_an_empty_log_has_caught_up():
    async def story() -> None:
        replica = Replica(LogModel(ModelStream(), "a"), MemoryMirror)
        replica.start()
        await asyncio.sleep(1)
        assert replica.caught_up

    run_virtual(story())


def test_a_mirror_that_is_made_anew_has_to_catch_up_again():
    async def story() -> None:
        stream = ModelStream()
        writer = FrameWriter(LogModel(stream, "a"), term=1, writer=11, end=0, message_max=10_000)
        await writer.append(Frame(FrameKind.TERM))
        log = HeldLog(stream, "b")

        def new_mirror() -> MemoryMirror:
            log.held = 0
            return MemoryMirror()

        replica = Replica(log, new_mirror)
        replica.start()
        log.held = 2
        await asyncio.sleep(1)
        assert replica.caught_up
        await writer.append(Frame(FrameKind.DIGEST, digest=b"d" * 32))
        await asyncio.sleep(1)
        assert (replica.rebuilt, replica.position, replica.caught_up) == (1, 0, False)
        log.held = 2
        await asyncio.sleep(1)
        assert replica.caught_up

    run_virtual(story())


def test_a_replica_that_has_failed_has_not_caught_up():
    async def story() -> None:
        stream = ModelStream()
        writer = FrameWriter(LogModel(stream, "a"), term=1, writer=11, end=0, message_max=10_000)
        replica = BrokenReplica(LogModel(stream, "b"), MemoryMirror)
        replica.start()
        await asyncio.sleep(1)
        assert replica.caught_up
        await writer.append(Frame(FrameKind.TERM))
        await asyncio.sleep(1)
        assert not replica.caught_up

    run_virtual(story())


def test_a_replica_rests_until_the_log_has_not_grown_for_a_while():
    async def story() -> list[float]:
        log, clock = LogModel(ModelStream(), "a"), asyncio.get_running_loop().time
        writer = FrameWriter(log, term=1, writer=11, end=0, message_max=10_000)
        await writer.append(Frame(FrameKind.TERM))
        replica = Replica(log, MemoryMirror)
        replica.start()
        await replica.catch_up()
        resting = asyncio.ensure_future(replica.rest(2.0))
        await asyncio.sleep(1.5)
        assert not resting.done()
        await writer.append(Frame(FrameKind.COMMIT))
        written = clock()
        await resting
        return [clock() - written, replica.position]

    rested, position = run_virtual(story())
    assert 2.0 <= rested < 2.1
    assert position == 2


class AloneLog(LogModel):
    """A log whose messages never arrive together."""

    async def follow(self, start: int) -> AsyncGenerator[LogMessage]:
        async for message in super().follow(start):
            yield LogMessage(message.sequence, message.data)


class CountingMirror(SqliteJournal):
    """A mirror that counts its transactions."""

    transactions = 0

    def append_encoded(self, encoded: Sequence[EncodedRow], forget: Sequence[int] = ()) -> None:
        self.transactions += 1
        super().append_encoded(encoded, forget)


def frames() -> list[Frame]:
    """Return the frames of 60 commits: each one forgets rows of earlier ones, the last its newest row."""
    rows = encoded_rows(enumerate(itertools.islice(itertools.cycle(EVENTS), 120), 1))
    commits = [
        Frame(FrameKind.COMMIT, rows[place : place + 2], [(place - 3, place - 2)] if place > 2 else [])
        for place in range(0, len(rows), 2)
    ]
    again = Frame(FrameKind.REWRITE, [rows[-4], rows[-2]])
    return [Frame(FrameKind.TERM), *commits, again, Frame(FrameKind.COMMIT, [], [(119, 120)])]


@pytest.mark.parametrize(("kind", "transactions"), [(AloneLog, 61), (LogModel, 1)])
def test_messages_that_arrive_together_are_one_transaction_of_the_same_rows(tmp_path, kind, transactions):
    async def story() -> tuple[int, list[tuple[int, AnyEvent]], int]:
        stream = ModelStream()
        writer = FrameWriter(LogModel(stream, "a"), term=1, writer=11, end=0, message_max=10_000)
        for frame in frames():
            await writer.append(frame)
        replica = Replica(kind(stream, "b"), lambda: CountingMirror.open(tmp_path / "mirror.db", "os"))
        replica.start()
        await replica.catch_up()
        await replica.stop()
        mirror = replica.mirror
        assert isinstance(mirror, CountingMirror)
        found = mirror.transactions, list(mirror.replay()), replica.table.rows
        mirror.close()
        return found

    count, rows, live = run_virtual(story())
    assert count == transactions
    left = {117, 118, 120}  # number 120 stays: no newer one was written
    assert dict(rows) == {number: EVENTS[(number - 1) % len(EVENTS)] for number in left}
    assert live == len(left) - 1


class FullMirror(MemoryMirror):
    """A mirror whose disk is full."""

    def append_encoded(self, encoded: Sequence[EncodedRow], forget: Sequence[int] = ()) -> None:
        raise JournalError("no room")


def test_nobody_takes_a_row_as_mirrored_that_could_not_be_written():
    async def story() -> None:
        log = LogModel(ModelStream(), "a")
        writer = FrameWriter(log, term=1, writer=11, end=0, message_max=10_000)
        position = await writer.append(frames()[1])
        replica = Replica(log, FullMirror)
        replica.start()
        for _ in range(2):
            with pytest.raises(JournalError, match="no room"):
                await replica.reach(position.last)

    run_virtual(story())
