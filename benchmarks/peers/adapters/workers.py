"""What the adapters share: where Redis is, and worker processes that are started by a peer's own command."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Self

from benchmarks.processes import family

#: Worker processes of every system.
PROCESSES = 4
#: No job of the benchmark may take longer, in seconds.
PATIENCE = 120.0


def redis_url(database: int = 0) -> str:
    """Return the address of a database of the benchmark's own Redis server."""
    return f"{os.environ['PEERS_REDIS']}/{database}"


def later(read: Callable[[], Iterable[Any]]) -> Iterator[Any]:
    """Yield what *read* returns, which is called when the first of it is asked for."""
    yield from read()


def parts() -> dict[str, list[int]]:
    """Return the processes of a peer by their part: Redis, and all that its client has started."""
    redis = os.environ.get("PEERS_REDIS_PID", "")
    own = os.getpid()
    started = [pid for pid in family(own) if pid != own]
    return {"manager": [int(redis)], "consumers": started} if redis else {"consumers": started}


class Workers:
    """A peer's worker command, run beside its client and ended with it."""

    #: The command, installed beside the interpreter, and its arguments.
    command: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        """Start the command; the first jobs wait in Redis until its workers are there."""
        executable = Path(sys.executable).with_name(self.command[0])
        self._child = subprocess.Popen([str(executable), *self.command[1:]])
        return self

    def pids(self) -> dict[str, list[int]]:
        """Return Redis' process and the workers'."""
        return parts()

    def __exit__(self, *exception: object) -> None:
        """Ask it to end as its manual says; insist after a while."""
        self._child.terminate()
        try:
            self._child.wait(20)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
