"""Tasks end although a cancellation is lost, as `asyncio.wait_for` of Python 3.11 may lose it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator

from svc.server.journal.jetstream.log import LogMessage
from svc.server.journal.jetstream.loop_thread import LoopThread, end_tasks
from svc.server.journal.jetstream.replica import Replica
from tests.support.log_model import LogModel, ModelStream
from tests.support.memory_journals import MemoryMirror
from tests.support.workers import until

Event = asyncio.Event | threading.Event
#: A hang lasts for ever.
SECONDS = 30


async def loses_one(begun: Event) -> None:
    """Wait for ever, also after the first cancellation."""
    begun.set()
    try:
        await asyncio.sleep(3600)
    except asyncio.CancelledError:
        await asyncio.sleep(3600)


async def raises_at_the_end(begun: Event) -> None:
    begun.set()
    try:
        await asyncio.sleep(3600)
    finally:
        raise ZeroDivisionError


class LossyLog(LogModel):
    """A log whose followers lose one cancellation."""

    def __init__(self) -> None:
        super().__init__(ModelStream(), "a")
        self.followed = asyncio.Event()

    async def follow(self, start: int) -> AsyncGenerator[LogMessage]:
        await loses_one(self.followed)
        async for message in super().follow(start):
            yield message


def test_tasks_are_cancelled_until_they_have_ended():
    async def story() -> None:
        kinds = {asyncio.Event(): loses_one, asyncio.Event(): raises_at_the_end}
        tasks = [asyncio.ensure_future(kind(begun)) for begun, kind in kinds.items()]
        for begun in kinds:
            await begun.wait()
        await asyncio.wait_for(end_tasks(*tasks), SECONDS)
        assert all(task.done() for task in tasks)
        await end_tasks()

    asyncio.run(story())


def test_a_thread_ends_although_a_task_has_lost_its_cancellation():
    thread, begun = LoopThread("t"), threading.Event()
    thread.start()
    thread.post(lambda: asyncio.ensure_future(loses_one(begun)))
    assert begun.wait(SECONDS)
    stopping = threading.Thread(target=thread.stop, daemon=True)
    stopping.start()
    until(lambda: not stopping.is_alive(), SECONDS, "the thread has ended")


def test_a_replica_stops_although_its_follower_has_lost_its_cancellation():
    async def story() -> None:
        log = LossyLog()
        replica = Replica(log, MemoryMirror)
        replica.start()
        await log.followed.wait()
        await asyncio.wait_for(replica.stop(), SECONDS)

    asyncio.run(story())
