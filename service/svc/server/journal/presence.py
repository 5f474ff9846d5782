"""Whether the journal's files are still where they were opened.

A file that is deleted, replaced, or hidden by another mount can be written to as before: everything that is
accepted then is lost with the process. So each commit ends with a look at the names, before anyone is told.
The files are never opened for it: closing a descriptor of theirs would drop SQLite's locks.
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
        """Note which files *paths* lead to now; one that does not exist yet is noted when it does."""
        self._journal = journal
        self._known: dict[Path, _Identity | None] = dict.fromkeys(paths)
        self.check()

    def check(self) -> None:
        """Compare; takes a few microseconds.

        Raises:
            JournalError: a path leads to another file, or nowhere.
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


def _identity(path: Path) -> _Identity | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - a third of the time of Path.stat, at each commit
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return _UNKNOWN  # the file system stumbles, which says nothing of the file
    return found.st_dev, found.st_ino
