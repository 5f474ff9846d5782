"""Places at which a test can kill the manager: `SVC_FAIL_AT=NAME`, or `NAME:N` for the N-th time there.

=================  ======================================================================================
``before_write``   before a commit's first byte is written to the log
``before_sync``    the commit is in the page cache, not synced
``after_sync``     the commit is durable, and no reply has been sent
``in_checkpoint``  some pages are in the file, others only in the log
``in_recovery``    while SQLite reads the log that an earlier process left
=================  ======================================================================================

The process sends itself SIGKILL there. If the variable is not set, the journal is opened on SQLite's own file
layer, and the only cost is reading the environment.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import Any

import apsw

from svc.errors import ConfigurationError

VARIABLE = "SVC_FAIL_AT"
NAMES = ("before_write", "before_sync", "after_sync", "in_checkpoint", "in_recovery")


def file_layer(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the name of SQLite's file layer: None for its own, else one with the chosen fail-point.

    Raises:
        ConfigurationError: the variable names no fail-point.
    """
    asked = environment.get(VARIABLE)
    if not asked:
        return None
    name, _, count = asked.partition(":")
    if name not in NAMES or not (count or "1").isdigit():
        raise ConfigurationError(f"{VARIABLE}={asked} is no fail-point; there are {', '.join(NAMES)}")
    return _Deadly(name, int(count or 1)).registered


class _Deadly(apsw.VFS):
    """A file layer that kills the process at a fail-point."""

    def __init__(self, place: str, count: int) -> None:
        self.registered = f"svc-{place}"
        self._place = place
        self._left = count
        super().__init__(self.registered, "")
        _alive.append(self)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802  # SQLite's name
        return _DeadlyFile(self, name, flags)

    def passing(self, place: str) -> None:
        """Kill the process if *place* is the fail-point and its count is reached."""
        if place == self._place:
            self._left -= 1
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)


#: SQLite keeps only the name; the object must live as long as the process.
_alive: list[_Deadly] = []


class _DeadlyFile(apsw.VFSFile):
    def __init__(self, layer: _Deadly, name: Any, flags: list[int]) -> None:
        self._layer = layer
        self._is_log = bool(flags[0] & apsw.SQLITE_OPEN_WAL)
        self._is_file = bool(flags[0] & apsw.SQLITE_OPEN_MAIN_DB)
        super().__init__("", name, flags)

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
