"""A copy of a journal in use. The journal's own connection makes it, one slice between two turns of the loop.

No other connection can make it, since the file is in exclusive mode. SQLite adds later commits to the copy as
well, so it holds everything that was accepted before its last slice. A thread then syncs and checks the copy,
and only a sound copy gets its name.
"""

from __future__ import annotations

import os
import re
import threading
import time
from pathlib import Path
from typing import Final

import apsw
import structlog

from svc.domain.replies import Copy
from svc.errors import BadRequest, Conflict, JournalError, ServiceError
from svc.server.journal.files import create, draft_beside, make_directory, publish, sync
from svc.server.journal.form import reason
from svc.server.journal.inspection import check_copy
from svc.server.journal.large_rows import LargeRows

#: Pages of 4 KiB in one slice. The loop waits for them, which takes some milliseconds even on a busy machine.
SLICE_PAGES: Final = 64
#: Rows that are checked between two pauses, and the seconds of a pause, which lets the loop run.
CHECKED_ROWS: Final = 500
REST_SECONDS: Final = 0.001
_IS_LARGE: Final = "SELECT 1 FROM events WHERE seq = ? AND length(body) = 0"
_FILL: Final = "UPDATE events SET body = ? WHERE seq = ?"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,100}")


class OnlineBackup:
    """One backup, from its first slice to its name."""

    def __init__(self, source: apsw.Connection, large_rows: LargeRows, directory: Path, name: str) -> None:
        """Begin to copy the journal of *source* to *name* in *directory*, which is made if need be.

        The content of *large_rows* is put into the copy too, so the copy is one complete file.

        Raises:
            BadRequest: *name* is no plain file name, or may be the name of one of the journal's own files.
            Conflict: the file exists.
            JournalError: the copy cannot be made there.
        """
        if not _NAME.fullmatch(name):
            raise BadRequest(f"{name!r} cannot name a backup; use letters, digits, dots, dashes")
        journal = Path(source.filename)
        if name.startswith(journal.name) and directory.resolve() == journal.resolve().parent:
            raise BadRequest(f"files named {journal.name}… there are the journal's own; choose another name")
        self.name = name
        self._path = directory / name
        self._draft = draft_beside(self._path)
        self._pages = self._left = 0
        self._large_rows = large_rows
        #: Large rows that are still to be put into the copy; None while pages are copied.
        self._large: list[int] | None = None
        #: `copying` while it reads the journal and its large rows, then `checking`, `done` or `failed`.
        self.status, self._error = "copying", ""
        try:
            make_directory(directory)
            if self._path.exists():
                raise Conflict(f"the backup {self._path} exists and stays as it is; choose another name")
            os.close(create(self._draft))
            self._target = apsw.Connection(str(self._draft), flags=apsw.SQLITE_OPEN_READWRITE)
            # The thread syncs the complete file at the end.
            self._target.pragma("synchronous", "OFF")
            self._target.pragma("journal_mode", "OFF")
            self._copy = self._target.backup("main", source, "main")
        except (OSError, apsw.Error) as error:
            raise JournalError(f"the backup {self._path} cannot be made ({reason(error)})") from None

    def state(self) -> Copy:
        """Return the state and progress of the backup."""
        return Copy(str(self._path), self.status, self._pages - self._left, self._pages, self._error)

    def copy_slice(self) -> bool:
        """Copy one slice; return whether there is more to copy. A failure is shown by `state`."""
        if self.status != "copying":
            return False
        try:
            done = self._copy_pages() if self._large is None else self._copy_large(self._large)
            if done:
                # The copy is one file: it gets a log only when a manager opens it.
                self._target.pragma("journal_mode", "DELETE")
                self._target.close()
        except (apsw.Error, ValueError) as error:
            self.abandon(reason(error) if isinstance(error, apsw.Error) else f"a large row: {error}")
            return False
        if done:
            self.status = "checking"
            threading.Thread(target=self._finish, name="backup", daemon=True).start()
        return not done

    def abandon(self, error: str) -> None:
        """Give up an incomplete copy; a complete one is still checked and named."""
        if self.status == "copying":
            self.status, self._error = "failed", error
            self._target.close(True)
            self._draft.unlink(missing_ok=True)

    def _copy_pages(self) -> bool:
        """Copy some pages; return whether that was all."""
        done = self._copy.step(SLICE_PAGES)
        self._pages, self._left = self._copy.page_count, self._copy.remaining
        if done:
            self._copy.finish()
            self._large = list(self._large_rows.sizes)
        return done and not self._large

    def _copy_large(self, left: list[int]) -> bool:
        """Put the content of one large row into the copy; return whether that was the last one.

        Raises:
            ValueError: its file cannot be read.
        """
        number = left.pop()
        if self._target.execute(_IS_LARGE, (number,)).get:
            self._target.execute(_FILL, (self._large_rows.read(number), number))
        return not left

    def _finish(self) -> None:
        """Sync, check and name the copy."""
        log = structlog.get_logger("svc.manager")
        try:
            sync(self._draft)
            check_copy(self._draft, _rest)
            publish(self._draft, self._path)
        except (OSError, apsw.Error, ServiceError) as error:
            self._draft.unlink(missing_ok=True)
            self.status, self._error = "failed", str(error)
            log.warning("backup_failed", path=str(self._path), error=str(error))
        else:
            self.status = "done"
            log.info("backup_made", path=str(self._path), size_b=self._path.stat().st_size)


def _rest(count: int) -> None:
    if count % CHECKED_ROWS == 0:
        time.sleep(REST_SECONDS)
