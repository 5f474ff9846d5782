"""The large rows: each has its content in a file of its own, in a directory beside the journal.

SQLite moves a row page by page, several times in memory and twice to the disk: into its log, and by a
checkpoint into the file. For large rows that is most of what they cost. So they are written here, once, and
the row itself stays empty. Its checksum is that of the content, as with any other.

The order keeps every promise: a file and its name are on disk before the row is committed, and it is removed
after the commit that deleted the row. So a row always has its file. A file without a row is what a crash
left; the next manager removes it once it has read all rows.
"""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from svc.server.journal.mark import sync_directory

#: Bytes from which a row goes into a file of its own.
LARGE_BYTES: Final = 256 * 1024
_FULL = (errno.ENOSPC, errno.EDQUOT)


class NoRoom(OSError):
    """The disk is full; nothing that was there before has changed."""


class LargeRows:
    """The files of a journal's large rows, by the numbers of the rows. Used by the thread that commits."""

    def __init__(self, journal: Path) -> None:
        """Keep the files beside *journal*; the directory is made with the first of them."""
        self._directory = large_rows_path(journal)
        #: How many bytes the known files take, and each of them.
        self.size = 0
        self._sizes: dict[int, int] = {}
        #: Those whose rows are gone, to be removed.
        self._leaving: set[int] = set()
        self._made = False
        self._remover: threading.Thread | None = None

    @property
    def numbers(self) -> list[int]:
        """The rows whose files are there, those of rows that are deleted and still kept among them."""
        return list(self._sizes)

    def write(self, contents: Sequence[tuple[int, bytes]]) -> None:
        """Make the files of these rows; they and their names are on disk when it returns.

        Raises:
            NoRoom: the disk is full.
            OSError: the disk reports an error.
        """
        if not contents:
            return
        self._make()
        for number, content in contents:
            self._note(number, len(content))
            _write_synced(self._path(number), content)
        sync_directory(self._directory)

    def read(self, number: int) -> bytes:
        """Return the content of a row, which the caller has to check.

        Raises:
            ValueError: its file is not there, or cannot be read.
        """
        try:
            content = self._path(number).read_bytes()
        except OSError as error:
            raise ValueError(f"its file {self._path(number)}: {error.strerror}") from None
        self._note(number, len(content))
        return content

    def leave(self, numbers: Iterable[int]) -> None:
        """Note that these rows are deleted: `remove` takes their files, where they have one."""
        if self._sizes:
            self._leaving.update(self._sizes.keys() & numbers)

    def remove(self) -> None:
        """Have the files of deleted rows removed, by a thread of its own; call it again and again.

        While the file system commits, to remove a file waits for that, which may take tens of milliseconds.
        """
        if not self._leaving or (self._remover is not None and self._remover.is_alive()):
            return
        numbers = frozenset(self._leaving)
        remover = threading.Thread(target=self._unlink, args=(numbers,), name="large-rows", daemon=True)
        try:
            remover.start()
        except RuntimeError:
            return  # this process can have no more threads now; the next call tries again
        self._remover = remover
        self._leaving.clear()
        self.size -= sum(self._sizes.pop(number) for number in numbers)

    def wait(self) -> None:
        """Wait until what is being removed is gone."""
        if self._remover is not None:
            self._remover.join()

    def sweep(self) -> None:
        """Remove what a crash left: all files that were neither written nor read here."""
        with suppress(OSError):
            for path in self._directory.iterdir():
                if not (path.name.isdigit() and int(path.name) in self._sizes):
                    path.unlink()

    def _unlink(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            # One that cannot be removed takes room, no more; the next manager tries again.
            with suppress(OSError):
                self._path(number).unlink()

    def _note(self, number: int, size: int) -> None:
        self.size += size - self._sizes.get(number, 0)
        self._sizes[number] = size

    def _make(self) -> None:
        if not self._made:
            self._directory.mkdir(mode=0o700, exist_ok=True)
            sync_directory(self._directory.parent)
            self._made = True

    def _path(self, number: int) -> Path:
        return self._directory / str(number)


def large_rows_path(journal: Path) -> Path:
    """Return where the large rows of *journal* are."""
    return Path(f"{journal}.large")


def large_rows_bytes(journal: Path) -> int:
    """Return the bytes of all files in the large rows of *journal*."""
    try:
        return sum(path.stat().st_size for path in large_rows_path(journal).iterdir())
    except OSError:
        return 0


def keep_large_rows(journal: Path, target: Path) -> None:
    """Keep the files of *journal*, as they are now, in the directory *target*.

    They are linked: no file is ever written again, only removed.

    Raises:
        OSError: there is no room or right to.
    """
    source = large_rows_path(journal)
    if source.is_dir():
        shutil.copytree(source, target / source.name, copy_function=os.link)
        sync_directory(target / source.name)


def _write_synced(path: Path, content: bytes) -> None:
    # What a crash left under this name may be linked elsewhere: it is replaced, not written over.
    path.unlink(missing_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        _write_all(file, memoryview(content))
        os.fdatasync(file)
    finally:
        os.close(file)


def _write_all(file: int, rest: memoryview) -> None:
    try:
        while rest:
            rest = rest[os.write(file, rest) :]
    except OSError as error:
        if error.errno in _FULL:
            raise NoRoom(*error.args) from None
        raise
