"""A file system whose locks do nothing, as some network file systems are.

`python -m tests.support.lockless manager …` is `svc manager …` on one.
"""

from __future__ import annotations

from typing import Any

import apsw

from svc.cli import main as svc
from svc.server.journal import ownership


class LocklessFile(apsw.VFSFile):
    """A file whose locks keep nobody away."""

    def xLock(self, level: int) -> None:  # noqa: N802  # SQLite's names
        pass

    def xUnlock(self, level: int) -> None:  # noqa: N802
        pass

    def xCheckReservedLock(self) -> bool:  # noqa: N802
        return False


class LocklessLayer(apsw.VFS):
    """SQLite's default layer until it is unregistered."""

    def __init__(self) -> None:
        super().__init__("lockless", "unix", makedefault=True)

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        return LocklessFile("unix", name, flags)


if __name__ == "__main__":
    layer = LocklessLayer()  # SQLite keeps only its name, so this object has to live
    vars(ownership)["_lock"] = lambda file: True
    svc()
