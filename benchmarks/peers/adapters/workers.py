"""The shared parts of the adapters: the address of Redis, and workers started by a peer's own command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self

from benchmarks.processes import family

#: Worker processes of every system.
PROCESSES = int(os.environ.get("PEERS_PROCESSES", "4"))
#: The most seconds that a job of the benchmark may take.
PATIENCE = 120.0


def redis_url(database: int = 0) -> str:
    """Return the address of a database of the benchmark's own Redis server."""
    return f"{os.environ['PEERS_REDIS']}/{database}"


def later(read: Callable[[], Iterable[Any]]) -> Iterator[Any]:
    """Yield the values of *read*, which is called when the first value is requested."""
    yield from read()


def parts() -> dict[str, list[int]]:
    """Return the process ids of a peer by part: Redis, and all processes that its client has started."""
    redis = os.environ.get("PEERS_REDIS_PID", "")
    own = os.getpid()
    started = [pid for pid in family(own) if pid != own]
    return {"manager": [int(redis)], "consumers": started} if redis else {"consumers": started}


class Workers:
    """A peer's worker command, started and stopped by its client."""

    #: The command, installed in the interpreter's directory, and its arguments.
    command: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        """Start the command; the first jobs wait in Redis until its workers are ready."""
        executable = Path(sys.executable).with_name(self.command[0])
        self._child = subprocess.Popen([str(executable), *self.command[1:]])
        return self

    def pids(self) -> dict[str, list[int]]:
        """Return the process ids of Redis and the workers."""
        return parts()

    def __exit__(self, *exception: object) -> None:
        """Terminate the command; kill it if it does not end within 20 s."""
        self._child.terminate()
        try:
            self._child.wait(20)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
