"""Celery on Redis: prefork, results by Redis' publish and subscribe."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from celery import Celery, group

from benchmarks import tasks
from benchmarks.peers.adapters.workers import PATIENCE, PROCESSES, Workers, later, redis_url

app = Celery("peers", broker=redis_url(0), backend=redis_url(1))
# Late acks, since otherwise a job is lost if its worker dies. The prefetch is that of the manual for short
# jobs.
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=64, worker_hijack_root_logger=False)
_TASKS = (tasks.same, tasks.nap, tasks.pause, tasks.stamped)
FUNCTIONS = {each.__name__: app.task(name=each.__name__)(each) for each in _TASKS}


class System(Workers):
    """`celery worker` with four processes, without events, which no program reads here."""

    command = (
        *("celery", "-A", "benchmarks.peers.adapters.celery", "worker", "--concurrency", str(PROCESSES)),
        *("--pool", "prefork", "--loglevel", "error", "-O", "fair"),
        *("--without-gossip", "--without-mingle", "--without-heartbeat"),
    )

    def all(self, function: Callable[[Any], Any], arguments: Iterable[Any]) -> Iterable[Any]:
        """Submit a group and join it with `join_native`: results come over one subscription."""
        task = FUNCTIONS[function.__name__]
        running = group(task.s(argument) for argument in arguments)()
        return later(lambda: running.join_native(timeout=PATIENCE))

    def one(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """Run one call."""
        return FUNCTIONS[function.__name__].delay(argument).get(timeout=PATIENCE)
