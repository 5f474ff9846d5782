"""Which memory a manager may have, and how much of it is in use."""

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
    """Return what watches over this process's memory; None if there is no limit.

    Against a number of bytes counts what this process has for itself; against the limit of a control group
    that, or what all processes in the group have, if it is more. Caches of files never count.
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
    """Return the bytes in memory that this process has for itself: not of files, not shared (proc(5))."""
    _, resident, shared, *_ = _STATM.read_bytes().split()
    return (int(resident) - int(shared)) * _PAGE_BYTES
