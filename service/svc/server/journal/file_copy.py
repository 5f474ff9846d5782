"""Journals in files as the source and as the target of a copy; see `copying`."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import apsw
import msgspec

from svc.broker.error_texts import put_back, set_aside
from svc.errors import Conflict, JournalError
from svc.server.journal.copying import CopyOrigin, Record
from svc.server.journal.files import file_bytes, sync
from svc.server.journal.form import (
    APPLICATION_ID,
    SCHEMA_VERSION,
    TEXTS_VERSION,
    explained,
    is_journal,
    make_tables,
    open_to_read,
    prepare_log,
    require_place,
)
from svc.server.journal.large_rows import LargeRows, large_rows_bytes, large_rows_path
from svc.server.journal.mark import Claim, TailLost, mark_path, open_mark, read_claim, this_boot
from svc.server.journal.rows import INSERT, checked_rows
from svc.server.journal.standing import (
    COMPLETE,
    COPIED_FROM,
    COPY_ID,
    MOVED_ID,
    MOVED_TO,
    read_place,
    write_place,
)
from svc.server.journal.store import rows_of
from svc.server.journal.texts import ErrorTexts

#: Of a copy under way, power loss may take the last rows: the next run writes them again.
_COPYING: Final = "NORMAL"
_SYNCED: Final = "FULL"
_TOTAL: Final = (
    "UPDATE events SET total = (SELECT count(*) FROM events) WHERE seq = (SELECT max(seq) FROM events)"
)
_INCARNATION: Final = "SELECT value FROM meta WHERE name = 'incarnation'"
_SET_INCARNATION: Final = "UPDATE meta SET value = ? WHERE name = 'incarnation'"


class FileSource:
    """A journal in a file, closed to all others while it is open here; see `CopySource`."""

    def __init__(self, path: Path) -> None:
        """Open the journal at *path*.

        Raises:
            Conflict: a manager has it open.
            ConfigurationError: there is no journal.
            CopyIncomplete: it is a copy that is not complete.
            JournalError: it cannot be read, or its end is lost.
        """
        self._path = path = path.absolute()
        self._connection, self._version = open_to_read(path)
        try:
            incarnation, newest = _end(self._connection)
            if (claim := read_claim(mark_path(path))) is not None:
                claim.check(path, incarnation, newest)
            self.origin = CopyOrigin(str(path), incarnation, newest)
            self.moved_to = ""
            if self._connection.pragma("application_id") == MOVED_ID:
                self.moved_to = read_place(self._connection, MOVED_TO)
        except (apsw.Error, TailLost) as error:
            self.close()
            raise _clear(path, error) from None

    @property
    def bytes(self) -> int:
        """The bytes that it takes on disk."""
        log = file_bytes(Path(f"{self._path}-wal"))
        return file_bytes(self._path) + log + large_rows_bytes(self._path)

    def rows(self) -> Iterator[Record]:
        """Yield all rows; see `CopySource.rows`."""
        with _clear_errors(self._path):
            yield from _whole_rows(self._connection, self._path, self._version)

    def move_to(self, place: str) -> None:
        """Mark the file as moved; see `CopySource.move_to`."""
        connection = self._connection
        with _clear_errors(self._path):
            connection.pragma("query_only", "OFF")
            connection.pragma("synchronous", _SYNCED)
            with connection:
                write_place(connection, MOVED_TO, place)
                connection.pragma("application_id", MOVED_ID)
        self.moved_to = place

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


class FileTarget:
    """A new journal in a file; see `CopyTarget`."""

    def __init__(self, path: Path, needed: int = 0) -> None:
        """Look at *path*, which must have no file, or a copy that *needed* some bytes and was begun.

        Raises:
            Conflict: there is another file, or another process copies to it.
            JournalError: the disk has no room for that, or the file cannot be read.
        """
        self._path = path = path.absolute()
        self.place = str(path)
        self.origin: CopyOrigin | None = None
        self.newest = -1
        self.complete = False
        self._texts: ErrorTexts
        if path.exists() and not path.is_file():
            raise Conflict(f"{path} is there, and is no file; copy to a place where nothing is")
        if file_bytes(path):
            try:
                with _clear_errors(path):
                    self._connection = self._open()
                    self._look()
            except BaseException:
                self.close()
                raise
            return
        for beside in (Path(f"{path}-wal"), mark_path(path), large_rows_path(path)):
            if beside.exists():
                raise Conflict(
                    f"{beside} exists and is not replaced; move the old journal's files away first"
                )
        _require_room(path, needed)

    def begin(self, origin: CopyOrigin) -> None:
        """Make the file, and mark it as a copy that is not complete; see `CopyTarget.begin`."""
        with _clear_errors(self._path):
            if not hasattr(self, "_connection"):
                self._make()
                self._connection = self._open()
            connection = self._connection
            prepare_log(connection)
            connection.pragma("synchronous", _COPYING)
            if self.origin is None:
                with connection:
                    make_tables(connection, new=True)
                    connection.pragma("application_id", COPY_ID)
                    write_place(connection, COPIED_FROM, msgspec.json.encode(origin).decode())
        self._texts = ErrorTexts(connection, self.newest)
        self.origin = origin

    def put(self, records: Sequence[Record]) -> None:
        """Add rows in one transaction; see `CopyTarget.put`."""
        short, texts = set_aside(records)
        with _clear_errors(self._path), self._connection as connection:
            connection.executemany(INSERT, rows_of(short))
            if texts:
                self._texts.add(texts)
        self.newest = records[-1][0]

    def rows(self) -> Iterator[Record]:
        """Yield all rows; see `CopySource.rows`."""
        with _clear_errors(self._path):
            if not self.complete:
                self._connection.execute(_TOTAL)
            yield from _whole_rows(self._connection, self._path, SCHEMA_VERSION)

    def finish(self, incarnation: int) -> None:
        """Make it a journal, with its mark; see `CopyTarget.finish`."""
        connection = self._connection
        try:
            with _clear_errors(self._path):
                connection.pragma("synchronous", _SYNCED)
                # From here on all rows are on disk, and the mark may claim them.
                connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
                claim = Claim(incarnation, self.newest, durable=1, boot=this_boot())
                os.close(open_mark(mark_path(self._path), claim))
                with connection:
                    connection.execute(_SET_INCARNATION, (incarnation,))
                    write_place(connection, COMPLETE, str(incarnation))
                    connection.pragma("application_id", APPLICATION_ID)
        except OSError as error:
            raise JournalError(
                f"the mark {mark_path(self._path)} cannot be written ({error.strerror}); see to the disk and "
                "run the same command again"
            ) from None
        self.complete = True

    def close(self) -> None:
        """Close the file, if there is one."""
        if hasattr(self, "_connection"):
            self._connection.close()

    def _open(self) -> apsw.Connection:
        connection = apsw.Connection(str(self._path), flags=apsw.SQLITE_OPEN_READWRITE)
        connection.set_busy_timeout(0)
        connection.pragma("locking_mode", "EXCLUSIVE")
        return connection

    def _look(self) -> None:
        """Read how far a copy has come, or refuse another journal."""
        connection = self._connection
        if not is_journal(connection, self._path):
            return
        incarnation, self.newest = _end(connection)
        unused = read_place(connection, COMPLETE) == str(incarnation)
        application = connection.pragma("application_id")
        if application != COPY_ID and not (application == APPLICATION_ID and unused):
            raise Conflict(f"{self._path} is a journal that was used; copy to a place where nothing is")
        self.origin = msgspec.json.decode(read_place(connection, COPIED_FROM), type=CopyOrigin)
        self.complete = application == APPLICATION_ID

    def _make(self) -> None:
        """Make the empty file."""
        require_place(self._path, must_exist=False)
        try:
            sync(self._path.parent)
        except OSError as error:
            raise JournalError(f"{self._path.parent} cannot be synced ({error.strerror})") from None


def _require_room(path: Path, needed: int) -> None:
    """Check that the disk of the new file *path* has room for *needed* bytes.

    Raises:
        JournalError: it has not.
    """
    folder = next(each for each in path.parents if each.exists())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise JournalError(
            f"the journal takes {needed} bytes, and the disk of {path} has {free} left; make room, or copy "
            "to another disk"
        )


@contextmanager
def _clear_errors(path: Path) -> Iterator[None]:
    """Turn errors of SQLite about the file *path* into those that tell the user what to do."""
    try:
        yield
    except apsw.Error as error:
        raise _clear(path, error) from None


def _clear(path: Path, error: apsw.Error | TailLost) -> Conflict | JournalError:
    if isinstance(error, TailLost):
        return JournalError(str(error))
    if isinstance(error, apsw.FullError):
        return JournalError(
            f"the disk of {path} is full; make room and run the same command again: it goes on with the copy"
        )
    return explained(path, error)


def _whole_rows(connection: apsw.Connection, path: Path, version: int) -> Iterator[Record]:
    """Yield all rows with the texts of their errors."""
    texts = ErrorTexts(connection, 0)

    def text_of(digest: bytes) -> bytes:
        try:
            return texts.read(digest)
        except ValueError as error:
            raise JournalError(f"the journal {path} is damaged: {error}; run `svc journal verify`") from None

    for number, event in checked_rows(connection, path, LargeRows(path), version):
        yield number, put_back(event, text_of) if version >= TEXTS_VERSION else event


def _end(connection: apsw.Connection) -> tuple[int, int]:
    """Return the incarnation of a journal and its newest row, or -1."""
    incarnation = connection.execute(_INCARNATION).get
    newest = connection.execute("SELECT max(seq) FROM events").get
    return int(incarnation), -1 if newest is None else int(newest)
