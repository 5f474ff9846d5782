"""The memory of a consumer and of the processes below it, as the kernel counts it; on Linux only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

#: Memory that a process has for itself: not the pages of files, which the kernel can drop at any time.
_COUNTED: Final = (b"RssAnon:", b"RssShmem:")


def memory_of(pid: int) -> int:
    """Return the bytes that process *pid* and all below it have for themselves; 0 if it has ended.

    A page that several of them share counts for each.
    """
    return sum(map(_own_memory, _tree(pid)))


def _own_memory(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_bytes().splitlines()
    except OSError:
        return 0  # it has just ended
    return sum(int(line.split()[1]) for line in lines if line.startswith(_COUNTED)) * 1024


def _tree(pid: int) -> Iterator[int]:
    """Yield *pid* and the processes below it: only their threads are looked at."""
    pending = [pid]
    while pending:
        each = pending.pop()
        yield each
        pending += _children(each)


def _children(pid: int) -> list[int]:
    try:
        threads = list(Path(f"/proc/{pid}/task").iterdir())
        return [int(child) for thread in threads for child in (thread / "children").read_bytes().split()]
    except OSError:
        return []
