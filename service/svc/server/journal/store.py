"""The journal in its file: append, read, replay, checkpoint.

The file is open in exclusive mode, so no other process (a second manager, a backup tool, the `sqlite3` shell)
can write to it or checkpoint it. For the same reason, nothing here opens the file a second time: closing any
descriptor of it would drop the process's POSIX locks.

========== ============= =============================================================================
durability synchronous   an accepted event survives
========== ============= =============================================================================
``fsync``  ``FULL``      kill -9 and power loss: the log is synced before `append` returns
``os``     ``NORMAL``    kill -9; power loss may undo the last commits, but leaves the file sound
========== ============= =============================================================================

(``OFF`` would not be faster for our writes, and power loss may then damage the file itself.)

A row that is damaged, missing or out of place is an error, and never yields a different list of jobs: each
row has a checksum, the newest row has the number of all rows, and the mark has the number of the newest row.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import apsw

from svc.broker.error_texts import Texts, put_back, set_aside
from svc.domain.events import AnyEvent
from svc.domain.replies import Copy
from svc.errors import ConfigurationError, Conflict, JournalError, RowMissing
from svc.server.journal.backup import Backup
from svc.server.journal.ballast import Ballast
from svc.server.journal.form import (
    DURABILITIES,
    Opened,
    begin_again,
    keep_copies,
    open_file,
    reason,
    require_place,
    require_sqlite,
    sqlite_release,
)
from svc.server.journal.large_rows import LargeRows, NoRoom, large_rows_path
from svc.server.journal.mark import Mark, TailLost, mark_path, read_claim
from svc.server.journal.ownership import Ownership
from svc.server.journal.presence import Presence
from svc.server.journal.rows import (
    UNREADABLE,
    Row,
    checked_rows,
    event_of,
    rows_of,
    runs_of,
    set_large_aside,
    unreadable,
)
from svc.server.journal.texts import ErrorTexts
from svc.server.journal.timepiece import Timepiece

_INSERT = "INSERT INTO events (seq, body, crc, total) VALUES (?, ?, ?, ?)"
_DELETE = "DELETE FROM events WHERE seq BETWEEN ? AND ?"
_COUNT = "UPDATE events SET total = ? WHERE seq = ?"
_READ = "SELECT body, crc FROM events WHERE seq = ?"


class SqliteJournal:
    """A `svc.broker.journal.Journal` in a file; made by `open`."""

    def __init__(
        self,
        opened: Opened,
        path: Path,
        durability: str,
        ownership: Ownership,
        mark: Mark,
        ballast: Ballast,
    ) -> None:
        """Take over the parts that `open` has prepared."""
        self.durability = durability
        self.incarnation = opened.incarnation
        #: The directory with a copy of a journal whose end was lost, if that loss was accepted; else None.
        self.kept_copy: Path | None = None
        #: The directory for backups.
        self.backups = Path(f"{path}.backups")
        self._backup: Backup | None = None
        self._connection = connection = opened.connection
        self._newest, self._total = opened.newest, opened.total
        #: The newest row, if it is to be forgotten: the next commit with a newer row deletes it.
        self._doomed: set[int] = set()
        self._path = path
        #: Whether `open` made the file.
        self.created = opened.created
        self._ownership = ownership
        self._presence = Presence(path, (path, Path(f"{path}-wal"), large_rows_path(path)))
        self._mark = mark
        self._ballast = ballast
        self._large_rows = LargeRows(path)
        self._timepiece = Timepiece(path)
        self._texts = ErrorTexts(connection, opened.last_text)
        self._broken = ""
        self._closed = False
        self._wal_pages = 0
        self._page_bytes = int(connection.pragma("page_size"))
        # The hook also replaces SQLite's own checkpoints, which would delay the commit that writes the
        # thousandth page.
        connection.set_wal_hook(self._committed)

    @classmethod
    def open(
        cls,
        path: Path | str,
        durability: str = "fsync",
        *,
        ballast_bytes: int = 0,
        accept_loss: bool = False,
        backups: Path | None = None,
        must_exist: bool = False,
        accept_network: bool = False,
    ) -> SqliteJournal:
        """Open the journal at *path*, make it and its directory if need be, and add 1 to its incarnation.

        Args:
            path: the file; there are others beside it, see the package.
            durability: `fsync` or `os`.
            ballast_bytes: size of the ballast; 0 for none.
            accept_loss: keep a copy of a journal whose end is lost, and then serve it.
            backups: the directory for backups; None for *path* with `.backups` appended.
            must_exist: do not make a new journal.
            accept_network: serve a journal on a network file system, which may let two managers write at
                once.

        Raises:
            ConfigurationError: *durability* is neither `fsync` nor `os`.
            Conflict: another process, or this one, has it open.
            JournalError: it cannot be created or read, is no journal, is one of a newer release, has lost
                its end, is missing and has to exist, or is on a network file system.
        """
        if durability not in DURABILITIES:
            raise ConfigurationError(f"durability {durability!r} is unknown; choose one of fsync, os, memory")
        require_sqlite(sqlite_release())
        path = Path(path).absolute()
        require_place(path, must_exist=must_exist)
        try:
            ownership = Ownership(path, accept_network=accept_network)
            try:
                kept, opened = _opened(path, durability, accept_loss=accept_loss)
                journal = cls._beside(opened, path, durability, ownership, ballast_bytes)
            except BaseException:
                ownership.close()
                raise
        except OSError as error:
            raise JournalError(
                f"the mark {mark_path(path)} cannot be read or written ({error.strerror}); see that this "
                "user may, and that the disk has room"
            ) from None
        journal.kept_copy = kept
        journal.backups = backups or Path(f"{path}.backups")
        return journal

    @classmethod
    def _beside(
        cls, opened: Opened, path: Path, durability: str, ownership: Ownership, ballast_bytes: int
    ) -> SqliteJournal:
        """Open the files beside the journal's file; return the journal."""
        try:
            mark = Mark(mark_path(path), opened.incarnation, opened.newest, durability)
        except OSError:
            opened.connection.close()
            raise
        journal = cls(opened, path, durability, ownership, mark, Ballast(path, ballast_bytes))
        journal.reserve()
        return journal

    def append(self, records: Sequence[tuple[int, AnyEvent]], forget: Sequence[int] = ()) -> None:
        """Commit *records* and deletions in one transaction; see `Journal.append`.

        The newest row stays until there is a newer one, even if it is to be forgotten. So the highest number
        in the file never decreases, and can be compared with the mark.
        """
        self._require_sound()
        newest = max([self._newest, *[number for number, _ in records]])
        gone = self._doomed.union(forget)
        if gone:
            records = [record for record in records if record[0] == newest or record[0] not in gone]
        records, texts = set_aside(records)
        rows = rows_of(records)
        self._doomed = gone & {newest}
        gone -= self._doomed
        if not rows and not gone:
            return
        self._watch(self._ownership.check)
        try:
            total = self._commit(rows, texts, sorted(gone), newest)
            self._mark.advance(newest)
            self._large_rows.leave(gone)
            self._remove_large()
        except (apsw.Error, OSError) as error:
            self._fail("written", error)
        self._watch(self._presence.check)
        self._newest, self._total = newest, total

    def read(self, sequence: int) -> AnyEvent:
        """Return one event; see `Journal.read`."""
        self._require_sound()
        try:
            row = self._connection.execute(_READ, (sequence,)).fetchone()
            if row is not None:
                event = event_of(sequence, row[0] or self._large_rows.read(sequence), row[1])
                return put_back(event, self._texts.read)
        except apsw.Error as error:
            self._fail("read", error)
        except UNREADABLE as error:
            raise unreadable(self._path, sequence, error) from None
        raise RowMissing(f"the journal {self._path} has no row {sequence}")

    def begin_incarnation(self) -> None:
        """Add 1 to the incarnation of the open file; see `Journal.begin_incarnation`."""
        self._require_sound()
        try:
            claim = read_claim(mark_path(self._path))
            opened = begin_again(self._connection, self._path, self.durability, claim)
            self._mark.begin(opened.incarnation, opened.newest)
        except TailLost as lost:
            raise JournalError(str(lost)) from None
        except (apsw.Error, OSError) as error:
            self._fail("written", error)
        self.incarnation = opened.incarnation
        self._newest, self._total = opened.newest, opened.total
        self._doomed = set()

    def replay(self) -> Iterator[tuple[int, AnyEvent]]:
        """Yield every (sequence number, event) in order; see `Journal.replay`.

        This reads each page and checks each row and the number of rows, so `open` needs no check of its own.
        """
        self._require_sound()
        try:
            yield from checked_rows(self._connection, self._path, self._large_rows)
            self._large_rows.sweep()
        except apsw.Error as error:
            self._fail("read", error)

    def size(self) -> int:
        """Return the bytes of the file, its write-ahead log and its large rows on disk."""
        return _bytes_of(self._path) + _bytes_of(Path(f"{self._path}-wal")) + self._large_rows.size

    def free_bytes(self) -> int:
        """Return the bytes that the file system has left for this user, without the ballast's space.

        The result is the same whether the ballast exists or has still to be made again.
        """
        return max(0, self._disk_bytes() - self._ballast.missing)

    def reserve(self) -> None:
        """Remove the files of deleted large rows, and make the ballast again; see `Journal.reserve`."""
        self._watch(self._ownership.check)
        self._watch(self._presence.check)
        self._remove_large()
        if self._ballast.missing:
            self._ballast.take(self._disk_bytes())

    def _remove_large(self) -> None:
        if self._backup is None or not self._backup.copying:  # a running backup may still read the files
            self._large_rows.remove()

    def wal_bytes(self) -> int:
        """Return the bytes committed since the last checkpoint that moved the whole log.

        The size of the log's file does not show this: the file is overwritten from its start, not truncated.
        """
        return self._wal_pages * self._page_bytes

    def checkpoint(self) -> None:
        """Move the log into the file, so that the next commit starts a new log; see `Journal.checkpoint`."""
        self._require_sound()
        try:
            frames, moved = self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.FullError:
            self._ballast.give_up()
            return  # everything is still in the log, and the next call tries again
        except apsw.Error as error:
            self._fail("checkpointed", error)
        if frames == moved:
            self._wal_pages = 0

    def note_time(self, now: float) -> None:
        """Note the manager's time beside the file; see `Journal.note_time`."""
        self._timepiece.note(now)

    def expected_time(self) -> float:
        """Return the time that it should be; see `Journal.expected_time`."""
        return self._timepiece.expected()

    def backup(self, name: str) -> Copy:
        """Begin a backup, or return the state of the one with that name; see `Journal.backup`."""
        self._require_sound()
        current = self._backup
        if current is None or (current.name != name and not current.running):
            current = self._backup = Backup(self._connection, self._large_rows, self.backups, name)
        elif current.name != name:
            raise Conflict(f"the backup {current.name} is being made; wait for it")
        return current.state()

    def copy_slice(self) -> bool:
        """Copy one slice of the running backup; see `Journal.copy_slice`."""
        return self._backup is not None and self._backup.copy_slice()

    def close(self) -> None:
        """Close the file; a sound journal is checkpointed, a broken one is not changed."""
        if self._closed:
            return
        self._closed = True
        if self._backup is not None:
            self._backup.abandon("the manager stopped")
        if self._broken:
            # The content on disk is the truth now: this process writes nothing more.
            self._connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
        self._broken = self._broken or f"the journal {self._path} is closed"
        self._connection.close()
        self._mark.close()
        self._ownership.close()
        self._large_rows.wait()

    def _commit(self, rows: list[Row], texts: Mapping[int, Texts], gone: list[int], newest: int) -> int:
        """Commit, if need be in the space of the ballast; return how many rows there are now.

        "Full" is not a failed sync: it comes from a write for which there was no space, before any sync, and
        the data is still in memory. The half-written frames have no commit mark and are overwritten. So a
        full disk allows one more attempt; an I/O error does not.
        """
        # With durability `os`, a file would not be on disk before its row.
        large = set_large_aside(rows) if self.durability == "fsync" else []
        try:
            self._large_rows.write(large)
            return self._transact(rows, texts, gone, newest)
        except (apsw.FullError, NoRoom):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            if not self._ballast.give_up():
                raise
        self._large_rows.write(large)
        return self._transact(rows, texts, gone, newest)

    def _transact(self, rows: list[Row], texts: Mapping[int, Texts], gone: list[int], newest: int) -> int:
        connection = self._connection
        total = self._total + len(rows)
        connection.execute("BEGIN IMMEDIATE")
        if gone:
            runs, before = runs_of(gone), connection.total_changes()
            connection.executemany(_DELETE, runs)
            total -= connection.total_changes() - before
            self._texts.leave(runs)
        if rows and rows[-1][0] == newest:
            rows[-1] = (*rows[-1][:3], total)
            connection.executemany(_INSERT, rows)
        else:
            connection.executemany(_INSERT, rows)
            connection.execute(_COUNT, (total, newest))
        self._texts.add(texts)
        connection.execute("COMMIT")
        return total

    def _disk_bytes(self) -> int:
        space = os.statvfs(self._path.parent)
        return space.f_bavail * space.f_frsize

    def _committed(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        self._wal_pages = pages
        return apsw.SQLITE_OK

    def _require_sound(self) -> None:
        if self._broken:
            raise JournalError(self._broken)

    def _watch(self, check: Callable[[], None]) -> None:
        """Refuse all calls from now on if *check* finds that the files are missing or belong to another."""
        try:
            check()
        except JournalError as error:
            self._broken = self._broken or str(error)
            raise

    def _fail(self, verb: str, error: apsw.Error | OSError) -> NoReturn:
        """Refuse all calls from now on: after a failed sync the page cache cannot be trusted any more."""
        told = reason(error) if isinstance(error, apsw.Error) else error.strerror
        self._broken = (
            f"the journal {self._path} cannot be {verb} ({told}); nothing accepted is lost: "
            "see to the disk, then start the manager again"
        )
        raise JournalError(self._broken) from error


def _opened(path: Path, durability: str, *, accept_loss: bool) -> tuple[Path | None, Opened]:
    """Open the file; return the directory of a copy if its end was lost (else None), and the open file."""
    try:
        return None, open_file(path, durability, read_claim(mark_path(path)))
    except TailLost as lost:
        if not accept_loss:
            raise JournalError(str(lost)) from None
        return keep_copies(path), open_file(path, durability, None)


def _bytes_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
