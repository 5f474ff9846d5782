"""TaskIQ on Redis lists: asyncio on both sides, four worker processes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Self

from taskiq_redis import ListQueueBroker, RedisAsyncResultBackend

from benchmarks import tasks
from benchmarks.peers.adapters.workers import PATIENCE, PROCESSES, Workers, later, redis_url

broker = ListQueueBroker(redis_url(0)).with_result_backend(
    RedisAsyncResultBackend(redis_url(1), result_ex_time=600)
)
# Its client polls for a result: every 200 ms by default, which would be most of a round trip.
_POLL_SECONDS = 0.001
_AT_ONCE = 100


async def same(value: Any) -> Any:
    """Run the no-op in the worker's event loop; a plain function would run in a thread pool."""
    return tasks.same(value)


def nap(value: Any) -> Any:
    """Sleep in the worker's thread. This wrapper is needed because TaskIQ renames registered functions."""
    return tasks.nap(value)


FUNCTIONS = {
    "same": broker.task(task_name="same")(same),
    "nap": broker.task(task_name="nap")(nap),
}


class System(Workers):
    """`taskiq worker` with four processes that take one job at a time, as the others do."""

    command = (
        *("taskiq", "worker", "benchmarks.peers.adapters.taskiq:broker", "--workers", str(PROCESSES)),
        *("--max-async-tasks", "1", "--max-prefetch", "0", "--max-threadpool-threads", "1"),
        *("--log-level", "ERROR"),
    )

    def __enter__(self) -> Self:
        """Connect, then start the workers."""
        self._loop = asyncio.Runner()
        self._loop.run(broker.startup())
        return super().__enter__()

    def __exit__(self, *exception: object) -> None:
        """End the workers, then the connection."""
        super().__exit__(*exception)
        self._loop.run(broker.shutdown())
        self._loop.close()

    def all(self, function: Callable[[Any], Any], arguments: Iterable[Any]) -> Iterable[Any]:
        """Send with many calls at once, then read the results in order."""
        sent = self._loop.run(_sent(function.__name__, list(arguments)))
        return later(lambda: self._loop.run(_values(sent)))

    def one(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """Run one call."""
        return self._loop.run(_one(function.__name__, argument))


async def _sent(name: str, arguments: list[Any]) -> list[Any]:
    sent: list[Any] = []
    for start in range(0, len(arguments), _AT_ONCE):
        part = arguments[start : start + _AT_ONCE]
        sent += await asyncio.gather(*(FUNCTIONS[name].kiq(argument) for argument in part))
    return sent


async def _values(sent: list[Any]) -> list[Any]:
    return [await _value(task) for task in sent]


async def _one(name: str, argument: Any) -> Any:
    return await _value(await FUNCTIONS[name].kiq(argument))


async def _value(task: Any) -> Any:
    result = await task.wait_result(check_interval=_POLL_SECONDS, timeout=PATIENCE)
    result.raise_for_error()
    return result.return_value
