"""The folder of a mirror: of one manager at a time, and emptied at its start."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from itertools import count
from pathlib import Path
from typing import Final

from svc.errors import ConfigurationError, Conflict, JournalError
from svc.server.journal.store import SqliteJournal

_PREFIX: Final = "mirror-"
#: The durability of a mirror: nothing of it is used after its manager has ended.
_DURABILITY: Final = "none"


class MirrorFolder:
    """A folder in which mirrors are made, one after the other."""

    def __init__(self, path: Path, backups: Path | None = None) -> None:
        """Take the folder at *path*, which is made if need be, and delete the mirrors in it.

        Online backups of a mirror go to *backups*; None is *path* with `.backups` appended.

        Raises:
            ConfigurationError: it has other files.
            Conflict: another manager uses it.
            JournalError: it cannot be made or read.
        """
        self._path = path
        self._backups = backups or Path(f"{path}.backups")
        self._made = 0
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            others = [entry.name for entry in path.iterdir() if not entry.name.startswith(_PREFIX)]
            self._lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise JournalError(
                f"the folder {path} for the mirror cannot be used ({error.strerror}); see to it, or name"
                " another one with --mirror"
            ) from None
        try:
            _require_no(others, path)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._lock)
            raise Conflict(
                f"another manager has its mirror in {path}; name another folder with --mirror"
            ) from None
        except BaseException:
            os.close(self._lock)
            raise

    def new(self) -> SqliteJournal:
        """Delete the mirrors, and return a new and empty one.

        Raises:
            JournalError: it cannot be made.
        """
        self._empty()
        self._made += 1
        return SqliteJournal.open(self._path / f"{_PREFIX}{self._made}", _DURABILITY, backups=self._backups)

    def keep(self) -> Path:
        """Rename the folder to PATH.lost-1, or the next number; return the place of the mirror."""
        kept = next(path for number in count(1) if not (path := Path(f"{self._path}.lost-{number}")).exists())
        self._path.rename(kept)
        os.close(self._lock)
        return kept / f"{_PREFIX}{self._made}"

    def close(self) -> None:
        """Delete the mirrors and, if it can be, the folder."""
        self._empty()
        os.close(self._lock)
        with contextlib.suppress(OSError):
            self._path.rmdir()

    def _empty(self) -> None:
        for entry in self._path.glob(f"{_PREFIX}*"):
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.unlink(missing_ok=True)


def _require_no(others: list[str], path: Path) -> None:
    if others:
        raise ConfigurationError(
            f"the folder {path} has other files ({min(others)}); name a folder for the mirror alone with "
            "--mirror: it is emptied at each start"
        )
