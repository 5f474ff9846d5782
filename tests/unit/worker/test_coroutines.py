"""Coroutines on the one event loop of a consumer; each attempt leaves nothing behind."""

from __future__ import annotations

import asyncio
import contextvars
import traceback
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from svc.worker.coroutines import STUCK, TaskLoop

WORD: contextvars.ContextVar[str] = contextvars.ContextVar("word", default="none")


@pytest.fixture
def changes() -> list[str]:
    return []


@pytest.fixture
def loop(changes: list[str]) -> TaskLoop:
    return TaskLoop(changes, cancel_seconds=0.2)


async def the_loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


async def for_ever(told: list[str]) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        told.append("ended")


async def numbers(told: list[str]) -> AsyncIterator[int]:
    try:
        yield 1
        yield 2
    finally:
        await asyncio.sleep(0)
        told.append("closed")


def test_all_coroutines_have_one_loop(loop: TaskLoop) -> None:
    assert loop.run(the_loop()) is loop.run(the_loop())


def test_a_task_that_is_left_behind_is_cancelled_and_its_end_is_awaited(
    loop: TaskLoop, changes: list[str]
) -> None:
    told: list[str] = []

    async def attempt() -> str:
        asyncio.create_task(for_ever(told))  # noqa: RUF006 - it is left behind
        await asyncio.sleep(0)
        return "done"

    assert (loop.run(attempt()), told, changes) == ("done", ["ended"], [])


def test_a_generator_that_is_left_behind_is_closed(loop: TaskLoop) -> None:
    told: list[str] = []
    kept: list[AsyncIterator[int]] = []

    async def attempt() -> int:
        kept.append(numbers(told))
        return await anext(kept[0])

    for times in (1, 2):
        assert loop.run(attempt()) == 1
        assert told == ["closed"] * times
        kept.clear()


def test_a_context_variable_is_seen_and_a_change_of_it_stays_in_the_attempt(loop: TaskLoop) -> None:
    async def attempt() -> str:
        seen = WORD.get()
        WORD.set("changed")
        return seen

    def both() -> list[str]:
        WORD.set("outer")
        return [loop.run(attempt()), loop.run(attempt())]

    assert contextvars.copy_context().run(both) == ["outer", "outer"]


def test_an_error_has_no_frame_of_asyncio(loop: TaskLoop) -> None:
    async def attempt() -> None:
        raise ValueError("here")

    with pytest.raises(ValueError, match="here") as raised:
        loop.run(attempt())
    assert "asyncio/" not in "".join(traceback.format_tb(raised.tb))


async def exits() -> None:
    raise SystemExit(3)


async def exits_in_a_task() -> None:
    await asyncio.create_task(exits())


async def stops_the_loop() -> None:
    asyncio.get_running_loop().stop()
    await asyncio.Event().wait()


async def cancels_itself() -> None:
    task = asyncio.current_task()
    assert task is not None
    task.cancel()
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("attempt", "error"),
    [
        (exits, SystemExit),
        (exits_in_a_task, SystemExit),
        (stops_the_loop, RuntimeError),
        (cancels_itself, asyncio.CancelledError),
    ],
)
def test_after_an_odd_end_the_loop_goes_on(loop: TaskLoop, attempt: Any, error: type[BaseException]) -> None:
    with pytest.raises(error):
        loop.run(attempt())
    assert loop.run(the_loop()) is loop.run(the_loop())
    assert not loop.changes


def test_what_a_task_that_is_left_behind_raises_is_logged_and_changes_no_outcome(
    loop: TaskLoop, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails_at_its_end() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise ValueError("at the end")

    async def attempt() -> str:
        asyncio.create_task(fails_at_its_end())  # noqa: RUF006 - it is left behind
        await asyncio.sleep(0)
        return "done"

    assert loop.run(attempt()) == "done"
    assert "failed that its job had left behind" in caplog.text
    assert "at the end" in caplog.text


def test_a_task_that_does_not_end_when_cancelled_is_a_change_to_the_process(
    loop: TaskLoop, changes: list[str]
) -> None:
    stop: list[asyncio.Event] = []

    async def stubborn(event: asyncio.Event) -> None:
        while not event.is_set():
            try:
                await event.wait()
            except asyncio.CancelledError:
                continue

    async def attempt() -> str:
        stop.append(asyncio.Event())
        asyncio.create_task(stubborn(stop[0]))  # noqa: RUF006 - it is left behind
        await asyncio.sleep(0)
        return "done"

    async def end() -> None:
        stop[0].set()
        await asyncio.sleep(0)

    assert (loop.run(attempt()), changes) == ("done", [STUCK])
    loop.run(end())


def test_a_loop_that_a_task_has_closed_is_replaced(loop: TaskLoop) -> None:
    first: asyncio.AbstractEventLoop = loop.run(the_loop())
    first.close()
    assert loop.run(the_loop()) is not first


def test_within_a_running_loop_a_coroutine_is_refused_and_closed(loop: TaskLoop) -> None:
    async def outer() -> None:
        inner: Coroutine[Any, Any, Any] = the_loop()
        with pytest.raises(RuntimeError, match="within a running event loop"):
            loop.run(inner)

    asyncio.run(outer())
