"""Huey on Redis, with process workers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from huey import RedisHuey

from benchmarks import tasks
from benchmarks.peers.adapters.workers import PATIENCE, PROCESSES, Workers, later, redis_url

huey = RedisHuey("peers", url=redis_url(), blocking=True)
FUNCTIONS = {function.__name__: huey.task()(function) for function in (tasks.same, tasks.nap)}

# Its client polls for a result, by default at first every 100 ms, which would be most of a round trip.
# Notification instead (`notify_result`) was slower in both measures.
_POLL_SECONDS = 0.001


class System(Workers):
    """`huey_consumer` with four processes."""

    command = (
        *("huey_consumer", "benchmarks.peers.adapters.huey.huey", "--quiet"),
        *("--workers", str(PROCESSES), "--worker-type", "process"),
    )

    def all(self, function: Callable[[Any], Any], arguments: Iterable[Any]) -> Iterable[Any]:
        """Enqueue one by one, since Huey has no call for many jobs, then read the results in order."""
        task = FUNCTIONS[function.__name__]
        submitted = [task(argument) for argument in arguments]
        return later(lambda: map(_value, submitted))

    def one(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """Run one call."""
        return _value(FUNCTIONS[function.__name__](argument))


def _value(result: Any) -> Any:
    return result.get(blocking=True, timeout=PATIENCE, max_delay=_POLL_SECONDS)
