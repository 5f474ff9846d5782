"""What the adapters share: where Redis is, and worker processes that are started by a peer's own command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Self

#: Worker processes of every system.
PROCESSES = 4
#: No job of the benchmark may take longer, in seconds.
PATIENCE = 120.0


def redis_url(database: int = 0) -> str:
    """Return the address of a database of the benchmark's own Redis server."""
    return f"{os.environ['PEERS_REDIS']}/{database}"


class Workers:
    """A peer's worker command, run beside its client and ended with it."""

    #: The command, installed beside the interpreter, and its arguments.
    command: tuple[str, ...] = ()

    def __enter__(self) -> Self:
        """Start the command; the first jobs wait in Redis until its workers are there."""
        executable = Path(sys.executable).with_name(self.command[0])
        self._child = subprocess.Popen([str(executable), *self.command[1:]])
        return self

    def __exit__(self, *exception: object) -> None:
        """Ask it to end as its manual says; insist after a while."""
        self._child.terminate()
        try:
            self._child.wait(20)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()
