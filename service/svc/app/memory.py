"""The memory limit of a manager, and its use of memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from svc.settings import MemoryLimit

if TYPE_CHECKING:
    from svc.server.scarcity import MemoryWatch

_STATM = Path("/proc/self/statm")
_PAGE_BYTES = os.sysconf("SC_PAGESIZE")


def memory_watch(limit: MemoryLimit, trim: Callable[[], None]) -> MemoryWatch | None:
    """Return the watch over this process's memory; None if there is no limit.

    A limit in bytes applies to the memory that this process has for itself. The limit of a control group
    applies to that memory, or to that of all processes in the group if it is more. Caches of files never
    count.
    """
    from svc.server.scarcity import MemoryWatch
    from svc.telemetry.cgroup import read_tightest

    if limit is None or (limit == "auto" and read_tightest() is None):
        return None

    def read() -> tuple[int, int]:
        if limit != "auto":
            return own_memory(), limit
        group = read_tightest()
        return (0, 0) if group is None else (max(group.used, own_memory()), group.limit)

    return MemoryWatch(read, trim)


def own_memory() -> int:
    """Return the bytes in memory that belong to this process: not of files, not shared (proc(5))."""
    _, resident, shared, *_ = _STATM.read_bytes().split()
    return (int(resident) - int(shared)) * _PAGE_BYTES
