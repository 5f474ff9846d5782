"""A file system whose locks do nothing, as some network file systems are.

`python -m tests.support.lockless manager …` is `svc manager …` on one.
"""

from __future__ import annotations

from typing import Any

import apsw

from svc.cli import main as svc
from svc.server.journal import form, ownership


class LocklessFile(apsw.VFSFile):
    """A file whose locks keep nobody away."""

    def xLock(self, level: int) -> None:  # noqa: N802  # SQLite's names
        pass

    def xUnlock(self, level: int) -> None:  # noqa: N802
        pass

    def xCheckReservedLock(self) -> bool:  # noqa: N802
        return False


class LocklessLayer(apsw.VFS):
    """Known to SQLite by its `name` until it is unregistered."""

    name = "lockless"

    def __init__(self) -> None:
        super().__init__(self.name, "")

    def xOpen(self, name: Any, flags: list[int]) -> apsw.VFSFile:  # noqa: N802
        return LocklessFile("", name, flags)


if __name__ == "__main__":
    layer = LocklessLayer()
    vars(form)["file_layer"] = lambda: layer.name
    vars(ownership)["_lock"] = lambda file: True
    svc()
