"""A disk that records all writes, and whose syncs can be made to fail."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

#: One operation: `write`, `truncate` or `sync`; the file's name; the offset or size; the bytes.
Step = tuple[str, str, int, bytes]


class Disk(apsw.VFS):
    """Records `history`; while `failing` is set, each sync reports an I/O error."""

    def __init__(self) -> None:
        self.failing = False
        self.history: list[Step] = []
        super().__init__("recorded", "unix")

    def xOpen(self, name, flags):  # noqa: N802
        return DiskFile(self, name, flags)


class DiskFile(apsw.VFSFile):
    BASE = "unix"

    def __init__(self, disk: Disk, name, flags) -> None:
        self.disk = disk
        self.name = Path(name.filename() if isinstance(name, apsw.URIFilename) else name).name
        super().__init__(self.BASE, name, flags)

    def xWrite(self, data, offset):  # noqa: N802
        self.disk.history.append(("write", self.name, offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, size):  # noqa: N802
        self.disk.history.append(("truncate", self.name, size, b""))
        super().xTruncate(size)

    def xSync(self, flags):  # noqa: N802
        if self.disk.failing:
            raise apsw.IOError("the disk reports an error")
        super().xSync(flags)
        self.disk.history.append(("sync", self.name, 0, b""))


@contextmanager
def recorded_disk() -> Iterator[Disk]:
    """Let every database that is opened in the block use one recorded disk."""
    before = apsw.vfs_names()[0]
    disk = Disk()
    apsw.set_default_vfs("recorded")
    try:
        yield disk
    finally:
        apsw.set_default_vfs(before)
        disk.unregister()
