"""A thread with an asyncio loop, for code that is not asynchronous."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
#: Seconds after which a task that has not ended is cancelled again; some tell the servers that they leave.
_CANCEL_AGAIN_SECONDS = 1.0


class LoopThread:
    """An asyncio loop in a thread of its own, from `start` to `stop`."""

    def __init__(self, name: str) -> None:
        """Call the thread *name*."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def post(self, function: Callable[[], object]) -> None:
        """Have *function* called in the loop soon; safe from any thread, and after the end."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function)

    def run(self, work: Coroutine[Any, Any, T], seconds: float | None = None) -> T:
        """Return the result of *work*, which runs in the loop.

        Raises:
            TimeoutError: it took more than *seconds*; it is cancelled.
        """
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result(seconds)
        except concurrent.futures.TimeoutError:
            future.cancel()
            raise

    def stop(self) -> None:
        """Cancel all that runs in the loop, and end the thread."""
        if self._thread.ident is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
            self._loop.run_until_complete(end_tasks(*asyncio.all_tasks(self._loop)))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            self._loop.close()


async def end_tasks(*tasks: asyncio.Task[Any]) -> None:
    """Cancel *tasks*, and return once all have ended.

    A cancellation can be lost, so it is repeated: `asyncio.wait_for` of Python 3.11, by which nats-py waits
    for answers, returns a result that comes at the same time instead (python/cpython issue 86296).
    """
    while running := [task for task in tasks if not task.done()]:
        for task in running:
            task.cancel()
        await asyncio.wait(running, timeout=_CANCEL_AGAIN_SECONDS)
    await asyncio.gather(*tasks, return_exceptions=True)
