"""Ray on this host: its own store and scheduler, four workers."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterable
from typing import Any, Self

import ray

from benchmarks import tasks
from benchmarks.peers.adapters.workers import PATIENCE, PROCESSES, later, parts

_STORE_BYTES = 200_000_000


class System:
    """`ray.init` with four processors, without its dashboard and usage reports."""

    def __enter__(self) -> Self:
        """Start it."""
        # A token for this run, since otherwise Ray makes one and stores it in the user's home.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        settings = {"include_dashboard": False, "log_to_driver": False, "_node_ip_address": "127.0.0.1"}
        ray.init(num_cpus=PROCESSES, object_store_memory=_STORE_BYTES, **settings)
        self._functions = {each.__name__: ray.remote(each) for each in (tasks.same, tasks.nap)}
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop all processes that it started."""
        ray.shutdown()

    def pids(self) -> dict[str, list[int]]:
        """Return all its processes except the client."""
        return parts()

    def all(self, function: Callable[[Any], Any], arguments: Iterable[Any]) -> Iterable[Any]:
        """Submit all, then get all in one call."""
        remote = self._functions[function.__name__].remote
        submitted = [remote(argument) for argument in arguments]
        return later(lambda: ray.get(submitted, timeout=PATIENCE))

    def one(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """Run one call."""
        return ray.get(self._functions[function.__name__].remote(argument), timeout=PATIENCE)
