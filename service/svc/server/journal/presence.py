"""Checks that the journal's files are still at the paths at which they were opened.

A process can still write to an open file that was deleted, replaced, or hidden by another mount, but all that
it accepts then is lost when it ends. So each commit ends with a check of the paths, before the replies are
sent. The check never opens the files: closing one of their descriptors would drop SQLite's locks.

After a commit, looking at one path takes about 8 microseconds, and there are three. So a commit only looks at
their directory, and at whether anything was mounted: no file can be moved, deleted or replaced without a
change of the directory's `st_ctime`, nor be hidden without a mount. Only a change is followed by a look at
all files.
"""

from __future__ import annotations

import os
import select
import time
from pathlib import Path
from typing import Final

from svc.errors import JournalError
from svc.server.journal.files import MOUNTS, TIMED, file_system
from svc.server.journal.large_rows import large_rows_path

#: Seconds after a change of the directory in which each commit looks at all files: two changes within one
#: step of the file system's clock have the same time. If the time has parts of a second, the step is the
#: kernel's tick, 10 ms at most; else it is 1 s, as on some disks of ext4.
SETTLED_SECONDS: Final = 0.1
WHOLE_SECONDS_SETTLED: Final = 1.5

#: The device, inode and `st_ctime` of the directory, as long as no file in it was moved, deleted or replaced.
Place = tuple[int, int, int]
UNSETTLED: Final[Place] = (-1, -1, -1)
_Identity = tuple[int, int]
_UNKNOWN: Final[_Identity] = (-1, -1)


class Presence:
    """The files of an open journal, each known by its device and inode."""

    def __init__(self, journal: Path) -> None:
        """Note the files of *journal*; a file that does not exist yet is noted once it does.

        Raises:
            OSError: the table of mounts cannot be opened.
        """
        self._journal = journal
        paths = (journal, f"{journal}-wal", large_rows_path(journal))
        #: By plain strings, which `os.stat` takes in half the time of a Path.
        self._known: dict[str, _Identity | None] = dict.fromkeys(map(str, paths))
        self.directory = str(journal.parent)
        #: Its `poll` tells of mounts since the last call.
        self.mounts = select.poll()
        #: The table of mounts; not open if the directory's `st_ctime` may not tell of each change.
        self._table = -1
        if file_system(journal) in TIMED:
            self._table = os.open(MOUNTS, os.O_RDONLY | os.O_CLOEXEC)
            self.mounts.register(self._table, select.POLLPRI)

    def check(self) -> Place:
        """Compare the files with the noted ones.

        Returns:
            While the directory has this place and nothing is mounted, the files need no further check.

        Raises:
            JournalError: a path leads to another file, or to none.
        """
        place = self._place()  # before the files, so that no change is missed
        for path, known in self._known.items():
            found = _identity(path)
            if found == _UNKNOWN:
                place = UNSETTLED
            elif known is None:
                self._known[path] = found
            elif found != known:
                how = "is gone" if found is None else "is another file now"
                raise JournalError(
                    f"{path} of the journal {self._journal} {how}, though this manager has it open; nothing "
                    "more is acknowledged: put it back or restore a backup (was it deleted, or its disk "
                    "unmounted?), then start the manager again"
                )
        return place

    def close(self) -> None:
        """Close the table of mounts."""
        if self._table >= 0:
            os.close(self._table)

    def _place(self) -> Place:
        # The target of a symbolic link goes without a change of this directory.
        if self._table < 0 or any(map(os.path.islink, self._known)):
            return UNSETTLED
        try:
            found = os.stat(self.directory)  # noqa: PTH116 - as above
        except OSError:
            return UNSETTLED
        settled = has_settled(found.st_ctime_ns, time.time())
        return (found.st_dev, found.st_ino, found.st_ctime_ns) if settled else UNSETTLED


def has_settled(changed_ns: int, now: float) -> bool:
    """Return whether a change of a directory at *now* or later has another time than that at *changed_ns*.

    Both are Unix times, in nanoseconds as the directory's `st_ctime_ns` and in seconds.
    """
    step = SETTLED_SECONDS if changed_ns % 1_000_000_000 else WHOLE_SECONDS_SETTLED
    return changed_ns / 1e9 < now - step


def _identity(path: str) -> _Identity | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - a third of the time of Path.stat, at each commit
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return _UNKNOWN  # a file system error, which tells nothing about the file
    return found.st_dev, found.st_ino
