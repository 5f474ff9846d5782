"""Watches disk space and memory of the manager's host, twice a second.

New jobs are refused while there is too little of either. Acknowledgements are still accepted, because they
free space.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import structlog

from svc.domain.refusals import DISK, MEMORY

if TYPE_CHECKING:
    from svc.broker.host import QueueHost

#: Shares of the memory limit: new jobs are refused from the first one on, and accepted again below the
#: second. The memory between the first and the limit is for requests that are being served, for results of
#: the stored jobs, and for a recovery, which needs up to a tenth more than was in use before.
REFUSE_SHARE = 0.75
RESUME_SHARE = 0.7
#: Share of the limit from which new jobs are refused even if much memory inside the process is free.
FULL_SHARE = 0.85
#: Seconds between two requests to the C library to return unused memory. Each takes up to a tenth of a
#: second, in which the manager serves no one.
TRIM_SECONDS = 30.0


class MemoryWatch:
    """Compares the memory in use with a limit; memory that is free inside the process counts only near it.

    Python returns memory by the mebibyte, and only if no object is left in it, so a process that was full
    stays large. Its use is therefore estimated: the number of blocks that Python has allocated now, relative
    to the largest number so far and the size that the process had then.
    """

    def __init__(
        self,
        read: Callable[[], tuple[int, int]],
        trim: Callable[[], None],
        blocks: Callable[[], int] = sys.getallocatedblocks,
    ) -> None:
        """Watch over memory.

        Args:
            read: returns the bytes that the process has, and the bytes that it may have (0: no limit).
            trim: returns the C library's unused memory to the system.
            blocks: returns how many blocks Python has allocated.
        """
        #: Bytes in use, by estimate, and the limit.
        self.used, self.limit = 0, 0
        #: Whether new jobs have to wait.
        self.scarce = False
        self._read = read
        self._trim = trim
        self._blocks = blocks
        self._trimmed_at = float("-inf")
        self._most_blocks, self._size_at_most = 1, 0

    def look(self, now: float) -> None:
        """Read how much memory is in use at *now* (monotonic seconds), and set `scarce`."""
        share = RESUME_SHARE if self.scarce else REFUSE_SHARE
        scarce = self._is_scarce(share)
        if scarce and now >= self._trimmed_at + TRIM_SECONDS:
            self._trimmed_at = now
            self._trim()
            scarce = self._is_scarce(share)
        self.scarce = scarce

    def _is_scarce(self, share: float) -> bool:
        size, self.limit = self._read()
        blocks = self._blocks()
        if blocks >= self._most_blocks:
            self._most_blocks, self._size_at_most = blocks, size
        self.used = min(size, self._size_at_most * blocks // self._most_blocks)
        return self.limit > 0 and (self.used >= share * self.limit or size >= FULL_SHARE * self.limit)


class Scarcity:
    """Makes a queue refuse new jobs while its host has too little disk space or memory."""

    def __init__(self, min_free_bytes: int = 0) -> None:
        """Refuse new jobs while the journal's disk has less than *min_free_bytes*."""
        self.min_free_bytes = min_free_bytes
        #: Watches the memory; None if there is no limit.
        self.memory: MemoryWatch | None = None
        self._full = False
        self._log = structlog.get_logger("svc.manager")

    def look(self, host: QueueHost, now: float) -> None:
        """Check disk space and memory at *now* (monotonic seconds)."""
        self._look_at_disk(host, host.look_at_journal())
        if self.memory is not None:
            self._look_at_memory(host, self.memory, now)

    def _look_at_disk(self, host: QueueHost, free: int | None) -> None:
        full = free is not None and free < self.min_free_bytes
        host.refuse(DISK, on=full)
        host.observer.measured("svc_journal_refusing", float(full))
        if free is not None:
            host.observer.measured("svc_journal_free_bytes", free)
        if full != self._full:
            self._full = full
            self._log.warning("journal_space", full=full, free_b=free, limit_b=self.min_free_bytes)

    def _look_at_memory(self, host: QueueHost, memory: MemoryWatch, now: float) -> None:
        before = memory.scarce
        memory.look(now)
        host.refuse(MEMORY, on=memory.scarce)
        host.observer.measured("svc_manager_memory_bytes", memory.used)
        host.observer.measured("svc_manager_memory_limit_bytes", memory.limit)
        host.observer.measured("svc_manager_memory_refusing", float(memory.scarce))
        if memory.scarce != before:
            self._log.warning(
                "manager_memory", scarce=memory.scarce, used_b=memory.used, limit_b=memory.limit
            )
