"""Dask distributed: a scheduler and four worker processes on loopback TCP."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Self

from distributed import Client, LocalCluster

from benchmarks.peers.adapters.workers import PATIENCE, PROCESSES, later, parts


class System:
    """A `LocalCluster` of processes with one thread, without its dashboard."""

    def __enter__(self) -> Self:
        """Start the cluster and connect to it."""
        self._cluster = LocalCluster(
            n_workers=PROCESSES, threads_per_worker=1, processes=True, protocol="tcp", dashboard_address=None
        )
        self._client = Client(self._cluster)
        return self

    def __exit__(self, *exception: object) -> None:
        """Close both."""
        self._client.close()
        self._cluster.close()

    def pids(self) -> dict[str, list[int]]:
        """Return all its processes except the client, which also runs the scheduler."""
        return parts()

    def all(self, function: Callable[[Any], Any], arguments: Iterable[Any]) -> Iterable[Any]:
        """Map, then gather, in one call each. The jobs are not pure, so that no result comes from a cache."""
        submitted = self._client.map(function, list(arguments), pure=False)
        return later(lambda: self._client.gather(submitted))

    def one(self, function: Callable[[Any], Any], argument: Any) -> Any:
        """Run one call."""
        return self._client.submit(function, argument, pure=False).result(timeout=PATIENCE)
