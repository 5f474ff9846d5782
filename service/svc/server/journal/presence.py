"""Checks that the journal's files are still at the paths at which they were opened.

A process can still write to an open file that was deleted, replaced, or hidden by another mount, but all that
it accepts then is lost when it ends. So each commit ends with a check of the paths, before the replies are
sent. The check never opens the files: closing one of their descriptors would drop SQLite's locks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from svc.errors import JournalError

_Identity = tuple[int, int]
_UNKNOWN: _Identity = (-1, -1)


class Presence:
    """The files of an open journal, each known by its device and inode."""

    def __init__(self, journal: Path, paths: Iterable[Path]) -> None:
        """Note the files at *paths*; a file that does not exist yet is noted once it does."""
        self._journal = journal
        #: By plain strings, which `os.stat` takes in half the time of a Path.
        self._known: dict[str, _Identity | None] = dict.fromkeys(map(str, paths))
        self.check()

    def check(self) -> None:
        """Compare the files with the noted ones; takes a few microseconds.

        Raises:
            JournalError: a path leads to another file, or to none.
        """
        for path, known in self._known.items():
            found = _identity(path)
            if found == _UNKNOWN:
                continue
            if known is None:
                self._known[path] = found
            elif found != known:
                how = "is gone" if found is None else "is another file now"
                raise JournalError(
                    f"{path} of the journal {self._journal} {how}, though this manager has it open; nothing "
                    "more is acknowledged: put it back or restore a backup (was it deleted, or its disk "
                    "unmounted?), then start the manager again"
                )


def _identity(path: str) -> _Identity | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - a third of the time of Path.stat, at each commit
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return _UNKNOWN  # a file system error, which tells nothing about the file
    return found.st_dev, found.st_ino
