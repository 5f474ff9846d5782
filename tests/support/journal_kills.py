"""A file layer of SQLite that kills its process at a named place of the journal.

`python -m tests.support.journal_kills PLACE[:N] manager …` is `svc manager …` that dies when it is at the
place for the N-th time (once is the default).

=================  ======================================================================================
``before_write``   before a commit's first byte is written to the log
``before_sync``    the commit is in the page cache, not synced
``after_sync``     the commit is durable, and no reply has been sent
``in_checkpoint``  some pages are in the file, others only in the log
``in_recovery``    while SQLite reads the log that an earlier process left
=================  ======================================================================================

The layer is made SQLite's default one, which the journal uses.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import apsw

from svc.cli import main as svc

PLACES = ("before_write", "before_sync", "after_sync", "in_checkpoint", "in_recovery")


class KillingLayer(apsw.VFS):
    """Kills the process at a place."""

    def __init__(self, place: str, count: int) -> None:
        if place not in PLACES:
            raise ValueError(f"{place} is no place of the journal; there are {', '.join(PLACES)}")
        self._place = place
        self._left = count
        super().__init__(f"kill-{place}", "unix", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802  # SQLite's name
        return _KillingFile(self, name, flags)

    def passing(self, place: str) -> None:
        """Kill the process if *place* is the chosen one and its count is reached."""
        if place == self._place:
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)


class _KillingFile(apsw.VFSFile):
    def __init__(self, layer: KillingLayer, name: Any, flags: list[int]) -> None:
        self._layer = layer
        self._is_log = bool(flags[0] & apsw.SQLITE_OPEN_WAL)
        self._is_file = bool(flags[0] & apsw.SQLITE_OPEN_MAIN_DB)
        super().__init__("unix", name, flags)

    def xRead(self, amount: int, offset: int) -> bytes:  # noqa: N802  # SQLite's names, here and below
        if self._is_log:
            self._layer.passing("in_recovery")
        return super().xRead(amount, offset)

    def xWrite(self, data: Any, offset: int) -> None:  # noqa: N802
        if self._is_log:
            self._layer.passing("before_write")
        super().xWrite(data, offset)
        if self._is_file:
            self._layer.passing("in_checkpoint")

    def xSync(self, flags: int) -> None:  # noqa: N802
        if self._is_log:
            self._layer.passing("before_sync")
        super().xSync(flags)
        if self._is_log:
            self._layer.passing("after_sync")


if __name__ == "__main__":
    place, _, count = sys.argv.pop(1).partition(":")
    layer = KillingLayer(place, int(count or 1))  # SQLite keeps only its name, so this object has to live
    svc()
