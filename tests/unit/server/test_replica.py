"""A replica tells those who wait for it that it follows the stream no more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from svc.errors import JournalError
from svc.server.journal.jetstream.frames import Frame, FrameKind
from svc.server.journal.jetstream.log import LogMessage
from svc.server.journal.jetstream.replica import Replica
from svc.server.journal.jetstream.writer import FrameWriter
from tests.support.log_model import LogModel, ModelStream
from tests.support.memory_journals import MemoryMirror
from tests.support.virtual_time import run_virtual


class BrokenReplica(Replica):
    """A replica with a fault."""

    def take(self, message: LogMessage) -> None:
        raise ZeroDivisionError(str(message.sequence))


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
            yield message


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
