"""Runs the coroutines of tasks on one event loop, one attempt at a time.

The loop stays between attempts, so a task may keep a session or a pool of connections that is bound to it.
Nothing of an attempt stays: the asyncio tasks that it has left are cancelled, and its generators are closed.
"""

from __future__ import annotations

import asyncio
import sys
import traceback
import weakref
from collections.abc import AsyncGenerator, Coroutine, Iterable
from typing import Any

from svc.domain.field_bounds import TRACEBACK_MAX
from svc.errors import SoftTimeout

#: Seconds that the asyncio tasks that an attempt has left may take to end, once they are cancelled.
CANCEL_SECONDS = 5.0
#: The name of the change that makes a consumer leave: an asyncio task is still there after that time.
STUCK = "asyncio task that does not end when cancelled"
#: Coroutines that a stack shows at most.
_STACK_FRAMES_MAX = 100

Generators = weakref.WeakSet[AsyncGenerator[Any, Any]]


class TaskLoop:
    """The event loop of a consumer; it is made for the first coroutine.

    Attributes:
        changes: changes to the process that cannot be put back, by name; empty unless a task is stuck.
    """

    def __init__(self, changes: list[str], cancel_seconds: float = CANCEL_SECONDS) -> None:
        """Note in *changes* if a cancelled task has not ended within *cancel_seconds*."""
        self.changes = changes
        self._cancel_seconds = cancel_seconds
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Return the result of *coroutine*, or raise its error, once all that it has begun has ended."""
        try:
            loop = self.opened()
        except RuntimeError:
            coroutine.close()
            raise
        others = asyncio.all_tasks(loop)
        generators: Generators = weakref.WeakSet()
        attempt = _Attempt(coroutine, generators)
        try:
            _complete(loop, attempt)
        except BaseException as error:  # noqa: BLE001 - a SystemExit of an asyncio task, or its own `loop.stop`
            attempt.fail(error)
        self._clear(loop, asyncio.all_tasks(loop) - others, generators)
        try:
            return attempt.outcome()
        finally:
            del attempt  # it has the error, whose traceback has this frame

    def opened(self) -> asyncio.AbstractEventLoop:
        """Return the loop.

        Raises:
            RuntimeError: a loop runs in this thread.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            raise RuntimeError("a coroutine cannot be run to its end from within a running event loop")
        loop = self._loop
        if loop is None or loop.is_closed():
            loop = self._loop = asyncio.new_event_loop()
            weakref.finalize(self, _close, loop)
        return loop

    def _clear(
        self, loop: asyncio.AbstractEventLoop, left: set[asyncio.Task[Any]], generators: Generators
    ) -> None:
        """Cancel the tasks that are *left*, then close the *generators* that have not ended."""
        if not (left or generators):
            return
        try:
            stuck = loop.run_until_complete(end_all(left, generators, self._cancel_seconds))
        except BaseException as error:  # noqa: BLE001 - a SystemExit of a task that is being cancelled
            loop.call_exception_handler({"message": "an asyncio task ended the loop", "exception": error})
            stuck = True
        if stuck and STUCK not in self.changes:
            self.changes.append(STUCK)


def _complete(loop: asyncio.AbstractEventLoop, attempt: _Attempt) -> None:
    """Run *attempt* to its end. At its soft timeout it is cancelled, and may still give a value."""
    running = loop.create_task(attempt.run())
    try:
        loop.run_until_complete(running)
    except SoftTimeout as error:  # while it waited: else the coroutine itself has it
        attempt.late = error
        running.cancel()
        loop.run_until_complete(running)


class _Attempt:
    """A coroutine and its outcome.

    The error is kept here, and not in a future: so its traceback has no frame of asyncio, and a `SystemExit`
    does not end the loop.

    Attributes:
        late: the soft timeout for which the coroutine was cancelled.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any], generators: Generators) -> None:
        self.late: SoftTimeout | None = None
        self._value: Any = None
        self._error: BaseException | None = None
        self._coroutine = coroutine
        self._generators = generators

    async def run(self) -> None:
        """Run the coroutine, and note the generators that begin meanwhile."""
        before = sys.get_asyncgen_hooks()

        def begun(generator: AsyncGenerator[Any, Any]) -> None:
            self._generators.add(generator)
            if before.firstiter is not None:
                before.firstiter(generator)

        # The loop puts the hooks back that were there before it ran.
        sys.set_asyncgen_hooks(firstiter=begun)
        try:
            self._value = await self._coroutine
        except BaseException as error:  # noqa: BLE001 - raised again by `outcome`
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """Take *error* for the outcome, unless there was one before: what ends the attempt is told."""
        if self._error is None:
            cancelled = self.late is not None and isinstance(error, asyncio.CancelledError)
            self._error = self.late if cancelled else error

    def outcome(self) -> Any:
        """Return the value, or raise the error."""
        try:
            if self._error is not None:
                raise self._error
            return self._value
        finally:
            self._error = None


def stack_of(task: asyncio.Task[Any] | None) -> str:
    """Return the lines at which *task* and the coroutines that it awaits are, the innermost one last."""
    lines: list[str] = []
    awaited: Any = None if task is None else task.get_coro()
    while (frame := getattr(awaited, "cr_frame", None)) is not None and len(lines) < _STACK_FRAMES_MAX:
        lines += traceback.format_stack(frame, 1)
        awaited = awaited.cr_await
    return "".join(lines)[:TRACEBACK_MAX]


async def end_all(
    tasks: set[asyncio.Task[Any]], generators: Iterable[AsyncGenerator[Any, Any]], seconds: float
) -> bool:
    """Cancel *tasks* and close *generators*; return whether one of them has not ended in some *seconds*."""
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks, timeout=seconds)
    closing = {asyncio.ensure_future(_closed(generator)) for generator in list(generators)}
    if closing:
        await asyncio.wait(closing, timeout=seconds)
    ended = {task for task in tasks | closing if task.done()}
    loop = asyncio.get_running_loop()
    for task in ended:
        if not task.cancelled() and task.exception() is not None:
            loop.call_exception_handler(
                {
                    "message": "an asyncio task failed that its job had left behind",
                    "exception": task.exception(),
                    "task": task,
                }
            )
    return ended != tasks | closing


async def _closed(generator: AsyncGenerator[Any, Any]) -> None:
    await generator.aclose()


def _close(loop: asyncio.AbstractEventLoop) -> None:
    if not loop.is_running():
        loop.close()
