"""Dramatiq on Redis, with its results middleware: four processes of one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks import tasks
from benchmarks.peers.adapters.workers import PATIENCE, PROCESSES, Workers, later, redis_url

broker = RedisBroker(url=redis_url(0))
broker.add_middleware(Results(backend=RedisBackend(url=redis_url(1)), store_results=True))
dramatiq.set_broker(broker)
FUNCTIONS = {function.__name__: dramatiq.actor(function) for function in (tasks.same, tasks.nap)}


class System(Workers):
    """The `dramatiq` command, with its default prefetch of two messages for each thread."""

    command = (
        *("dramatiq", "benchmarks.peers.adapters.dramatiq"),
        *("--processes", str(PROCESSES), "--threads", "1"),
    )

    def all(self, function: Callable[[Any], Any], arguments: Iterable[Any]) -> Iterable[Any]:
        """Run a group and read its results with Redis' blocking pop."""
        actor = FUNCTIONS[function.__name__]
        running = dramatiq.group(actor.message(argument) for argument in arguments).run()
        return later(lambda: running.get_results(block=True, timeout=int(PATIENCE * 1000)))

    def one(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """Run one call."""
        message = FUNCTIONS[function.__name__].send(argument)
        return message.get_result(block=True, timeout=int(PATIENCE * 1000))
