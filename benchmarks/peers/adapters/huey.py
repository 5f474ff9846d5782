"""Huey on Redis, with process workers that notify the client of a result; by default it polls."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from huey import RedisHuey

from benchmarks import tasks
from benchmarks.peers.adapters.workers import PATIENCE, PROCESSES, Workers, redis_url

huey = RedisHuey("peers", url=redis_url(), blocking=True, notify_result=True)
FUNCTIONS = {function.__name__: huey.task()(function) for function in (tasks.same, tasks.nap)}


class System(Workers):
    """`huey_consumer` with four processes."""

    command = (
        *("huey_consumer", "benchmarks.peers.adapters.huey.huey", "--quiet"),
        *("--workers", str(PROCESSES), "--worker-type", "process"),
    )

    def all(self, function: Callable[[Any], Any], arguments: Iterable[Any]) -> Iterable[Any]:
        """Enqueue one by one, as it has no call for many, then read the results in order."""
        task = FUNCTIONS[function.__name__]
        return [_value(result) for result in [task(argument) for argument in arguments]]

    def one(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """Run one call."""
        return _value(FUNCTIONS[function.__name__](argument))


def _value(result: Any) -> Any:
    return result.get(blocking=True, timeout=PATIENCE)
