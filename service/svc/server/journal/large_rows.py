"""The large rows: each has its content in a file of its own, in a directory beside the journal.

SQLite moves a row page by page, several times in memory and twice to the disk: into its log, and by a
checkpoint into the file. For large rows, that is most of their cost. So their content is written here, once,
and the row itself stays empty. Its checksum is that of the content, as for any other row.

A row always has its file: the file and its name are on disk before the row is committed, and the file is
removed after the commit that deletes the row. A crash may leave a file without a row; the next manager
removes it once it has read all rows.
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

from svc.server.journal.files import create, make_directory, sync

#: A row of this many bytes or more gets a file of its own.
LARGE_BYTES: Final = 256 * 1024
_FULL = (errno.ENOSPC, errno.EDQUOT)


class NoRoom(OSError):
    """The disk is full; no earlier content has changed."""


class LargeRows:
    """The files of a journal's large rows, by the numbers of the rows. Used by the thread that commits."""

    def __init__(self, journal: Path) -> None:
        """Keep the files beside *journal*; the directory is made with the first file."""
        self._directory = large_rows_path(journal)
        #: The bytes of all known files.
        self.size = 0
        #: The bytes of each of them, by the number of its row; with deleted rows until their file is removed.
        self.sizes: dict[int, int] = {}
        #: Deleted rows whose files have to be removed.
        self.dropped: set[int] = set()
        self._remover: threading.Thread | None = None

    def write(self, contents: Sequence[tuple[int, bytes]]) -> None:
        """Write the files of these rows, and sync them and their names.

        Raises:
            NoRoom: the disk is full.
            OSError: the disk reports an error.
        """
        make_directory(self._directory)
        for number, content in contents:
            self._note(number, len(content))
            _write_synced(self._path(number), content)
        sync(self._directory)

    def read(self, number: int) -> bytes:
        """Return the content of a row; the caller has to verify its checksum.

        Raises:
            ValueError: its file does not exist, or cannot be read.
        """
        try:
            content = self._path(number).read_bytes()
        except OSError as error:
            raise ValueError(f"its file {self._path(number)}: {error.strerror}") from None
        self._note(number, len(content))
        return content

    def drop(self, numbers: Iterable[int]) -> None:
        """Note that these rows are deleted; `remove` removes their files, if they have any."""
        self.dropped.update(self.sizes.keys() & numbers)

    def remove(self) -> None:
        """Remove the files of deleted rows in a thread; call it regularly.

        While the file system commits, removing a file waits for that, which may take tens of milliseconds.
        """
        if self._remover is not None and self._remover.is_alive():
            return
        numbers = frozenset(self.dropped)
        remover = threading.Thread(target=self._unlink, args=(numbers,), name="large-rows", daemon=True)
        try:
            remover.start()
        except RuntimeError:
            return  # no more threads are possible now; the next call tries again
        self._remover = remover
        self.dropped.clear()
        self.size -= sum(self.sizes.pop(number) for number in numbers)

    def wait(self) -> None:
        """Wait until the running removal is done."""
        if self._remover is not None:
            self._remover.join()

    def sweep(self) -> None:
        """Remove the files that a crash left: all files that were neither written nor read here."""
        with suppress(OSError):
            for path in self._directory.iterdir():
                if not (path.name.isdigit() and int(path.name) in self.sizes):
                    path.unlink()

    def _unlink(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            # A file that cannot be removed only takes space; the next manager tries again.
            with suppress(OSError):
                self._path(number).unlink()

    def _note(self, number: int, size: int) -> None:
        self.size += size - self.sizes.get(number, 0)
        self.sizes[number] = size

    def _path(self, number: int) -> Path:
        return self._directory / str(number)


def large_rows_path(journal: Path) -> Path:
    """Return the directory of the large rows of *journal*."""
    return Path(f"{journal}.large")


def large_rows_bytes(journal: Path) -> int:
    """Return the bytes of all large rows' files of *journal*."""
    try:
        return sum(path.stat().st_size for path in large_rows_path(journal).iterdir())
    except OSError:
        return 0


def keep_large_rows(journal: Path, target: Path) -> None:
    """Keep the current files of *journal* in the directory *target*.

    They are hard links: no file is ever changed, only removed.

    Raises:
        OSError: the disk is full, or this user may not write there.
    """
    source = large_rows_path(journal)
    if source.is_dir():
        shutil.copytree(source, target / source.name, copy_function=os.link)
        sync(target / source.name)


def _write_synced(path: Path, content: bytes) -> None:
    # A file that a crash left under this name may be linked elsewhere, so it is replaced, not overwritten.
    path.unlink(missing_ok=True)
    try:
        with os.fdopen(create(path), "wb") as file:
            file.write(content)
            file.flush()
            os.fdatasync(file.fileno())
    except OSError as error:
        if error.errno in _FULL:
            raise NoRoom(*error.args) from None
        raise
