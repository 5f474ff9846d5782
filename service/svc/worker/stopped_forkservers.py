"""Ends forkservers that are stopped: such a one neither forks consumers nor tells of their ends."""

from __future__ import annotations

import os
import signal
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

#: Seconds between two looks. A worker that was stopped as a whole may go on before its forkserver does; so
#: only one that is stopped at two looks is ended.
_LOOK_SECONDS: Final = 1.0


class StoppedForkservers:
    """Finds forkservers that a task has stopped, and kills them; their consumers die with them.

    Args:
        log: the log of the worker.
    """

    def __init__(self, log: Any) -> None:
        self._log = log
        self._look_at = 0.0
        self._stopped: set[int] = set()

    def look(self, servers: Collection[int], now: float) -> None:
        """Kill those of *servers* that were stopped at the last look, too; *now* is monotonic, in seconds."""
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_SECONDS
        before, self._stopped = self._stopped, {pid for pid in servers if _is_stopped(pid)}
        for pid in self._stopped & before:
            self._log.warning("forkserver_stopped", pid=pid)
            end_if_stopped(pid)


def end_if_stopped(pid: int) -> None:
    """Kill the forkserver *pid* if it is stopped. Thread-safe."""
    if _is_stopped(pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _is_stopped(pid: int) -> bool:
    """Return whether process *pid* is stopped; False without /proc, and for one that a debugger holds."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    # The name before the state may have spaces and parentheses of its own.
    return stat.rpartition(b")")[2].split()[:1] == [b"T"]
