"""The journal in its file: append, read, replay, checkpoint.

The file is open in exclusive mode, so no other process (a second manager, a backup tool, the `sqlite3` shell)
can write to it or checkpoint it. For the same reason, nothing here opens the file a second time: closing any
descriptor of it would drop the process's POSIX locks.

========== ============= =============================================================================
durability synchronous   an accepted event survives
========== ============= =============================================================================
``fsync``  ``FULL``      kill -9 and power loss: the log is synced before `append` returns
``os``     ``NORMAL``    kill -9; power loss may undo the last commits, but leaves the file sound
``none``   ``OFF``       kill -9; power loss may damage the file: only for the mirror of another journal
========== ============= =============================================================================

A row that is damaged, missing or out of place is an error, and never yields a different list of jobs: each
row has a checksum, the newest row has the number of all rows, and the mark has the number of the newest row.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Final, NoReturn, Unpack
from zlib import crc32

import apsw

from svc.broker.error_texts import Texts, put_back, set_aside
from svc.domain.events import AnyEvent, Failed
from svc.domain.replies import Copy
from svc.errors import Conflict, JournalError, RowMissing
from svc.server.journal.backup import OnlineBackup
from svc.server.journal.clock_file import ClockFile
from svc.server.journal.files import CHECK, file_bytes
from svc.server.journal.form import reason
from svc.server.journal.large_rows import LARGE_BYTES, LargeRows, NoRoom
from svc.server.journal.mark import CLAIM, MAGIC, SLOTS, SYNC_SECONDS
from svc.server.journal.mirror import Mirror
from svc.server.journal.opening import OpenOptions, begin_anew, open_files
from svc.server.journal.presence import UNSETTLED
from svc.server.journal.rows import (
    CHECK_MASK,
    FAILED_TAG,
    INSERT,
    UNREADABLE,
    EncodedRow,
    Record,
    Row,
    checked_rows,
    due_rows,
    encode_event,
    event_of,
    runs_of,
    set_large_aside,
    tag_of,
    texts_aside,
    unreadable,
    with_checks,
)
from svc.server.journal.texts import ErrorTexts

#: Seconds between two checks of a journal to which nothing is written.
CHECK_SECONDS: Final = 0.5
#: Bytes in the write-ahead log at which it is checkpointed even under load, and when idle.
CHECKPOINT_BYTES: Final = 8 * 1024 * 1024
CHECKPOINT_IDLE_BYTES: Final = 1024 * 1024

_DELETE = "DELETE FROM events WHERE seq BETWEEN ? AND ?"
_COUNT = "UPDATE events SET total = ? WHERE seq = ?"
_READ = "SELECT body, crc FROM events WHERE seq = ?"
_BODY = itemgetter(1)


class SqliteJournal(Mirror):
    """A journal in a file; made by `open`.

    Attributes:
        created: whether `open` made the file.
        kept_copy: the directory with a copy of a journal whose end was lost, if that loss was accepted.
        backups: the directory for backups.
    """

    def __init__(self, path: Path, durability: str, options: OpenOptions) -> None:
        """Open the file at *path*; see `open_files`."""
        files = open_files(path, durability, options)
        opened = files.opened
        self.durability, self.incarnation = durability, opened.incarnation
        self.created, self.kept_copy = opened.created, files.kept_copy
        self.backups = options.get("backups") or Path(f"{path}.backups")
        self._path = path
        self._connection = connection = opened.connection
        self._newest, self._total = opened.newest, opened.total
        #: The newest row, if it is to be forgotten; see `due_rows`.
        self._deferred: set[int] = set()
        self._ownership, self._ballast = files.ownership, files.ballast
        self._presence, self._place = files.presence, UNSETTLED
        self._claim, self._mark, self._slot = files.claim, files.mark, SLOTS[0]
        self._next_mark_sync = self._next_check = 0.0
        self._large_rows = LargeRows(path)
        self._clock_file = ClockFile(path)
        self._texts = ErrorTexts(connection, opened.last_text)
        self._backup: OnlineBackup | None = None
        self._broken = ""
        self._closed = False
        #: The bytes committed since the last checkpoint that moved the whole log. The size of the log's file
        #: does not show this: the file is overwritten from its start, not truncated.
        self.wal_bytes = 0
        self._page_bytes = int(connection.pragma("page_size"))
        # The hook also replaces SQLite's own checkpoints, which would delay the commit that writes the
        # thousandth page.
        connection.set_wal_hook(self._committed)

    @classmethod
    def open(
        cls, path: Path | str, durability: str = "fsync", **options: Unpack[OpenOptions]
    ) -> SqliteJournal:
        """Open the journal at *path* with *durability* `fsync` or `os`; see `open_files`."""
        journal = cls(Path(path).absolute(), durability, options)
        try:
            journal.reserve()
        except BaseException:
            journal.close()
            raise
        return journal

    def append(self, records: Sequence[tuple[int, AnyEvent]], forget: Sequence[int] = ()) -> None:
        """Commit *records* and deletions in one transaction; see `Journal.append`."""
        self._require_sound()
        records, gone, newest = self._due(records, forget)
        texts: Mapping[int, Texts] = {}
        if Failed in [type(event) for _, event in records]:
            records, texts = set_aside(records)
        self._keep(rows_of(records), texts, gone, newest)

    def append_encoded(self, encoded: Sequence[EncodedRow], forget: Sequence[int] = ()) -> None:
        """Do the same with events that are encoded; see `Mirror.append_encoded`."""
        self._require_sound()
        encoded, gone, newest = self._due(encoded, forget)
        has_texts = FAILED_TAG in map(tag_of, map(_BODY, encoded))
        encoded, texts = texts_aside(encoded) if has_texts else (encoded, {})
        self._keep(with_checks(encoded), texts, gone, newest)

    def _due(
        self, records: Sequence[Record], forget: Sequence[int]
    ) -> tuple[Sequence[Record], set[int], int]:
        """Return the records to write, the numbers to delete, and the newest number; see `due_rows`."""
        newest = max([self._newest, *[number for number, _ in records]])
        gone = self._deferred.union(forget)
        if gone:
            records, gone, self._deferred = due_rows(records, gone, newest)
        return records, gone, newest

    def _keep(self, rows: list[Row], texts: Mapping[int, Texts], gone: set[int], newest: int) -> None:
        if not rows and not gone:
            return
        if time.monotonic() >= self._ownership.next_check:
            self._watch(self._ownership.check)
        try:
            total = self._commit(rows, texts, sorted(gone), newest)
            self._advance_mark(newest)
        except (apsw.Error, OSError) as error:
            self._fail("written", error)
        if gone and self._large_rows.size:
            self._large_rows.drop(gone)
            self._remove_large()
        if not self._is_in_place():
            self._watch(self._look)
        self._newest, self._total = newest, total

    def maintain(self, *, idle: bool) -> bool:
        """Check the files and the owner, checkpoint, and copy a slice of a backup; see `Journal.maintain`."""
        now = time.monotonic()
        if now >= self._next_check:
            self._next_check = now + CHECK_SECONDS
            self.reserve()
        if self.wal_bytes > (CHECKPOINT_IDLE_BYTES if idle else CHECKPOINT_BYTES):
            self.checkpoint()
        return self._backup is not None and self._backup.copy_slice()

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
            opened, self._claim = begin_anew(
                self._connection, self._path, self.durability, self._mark, self._claim
            )
        except (apsw.Error, OSError) as error:
            self._fail("written", error)
        self.incarnation, self._deferred = opened.incarnation, set()
        self._newest, self._total = opened.newest, opened.total

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
        return file_bytes(self._path) + file_bytes(Path(f"{self._path}-wal")) + self._large_rows.size

    def free_bytes(self) -> int:
        """Return the bytes that are left for this user, without those of the ballast, made or not."""
        return self._ballast.room()

    def reserve(self) -> None:
        """Check the owner and the files, remove those of deleted rows, and make the ballast again.

        Raises:
            JournalError: another manager has the journal, or its files are not in their place.
        """
        if time.monotonic() >= self._ownership.next_check:
            self._watch(self._ownership.check)
        if not self._is_in_place():
            self._watch(self._look)
        if self._large_rows.dropped:
            self._remove_large()
        self._ballast.take()

    def _remove_large(self) -> None:
        # A running backup may still read the files.
        if self._backup is None or self._backup.status != "copying":
            self._large_rows.remove()

    def checkpoint(self) -> None:
        """Move the log into the file, so that the next commit starts a new log.

        The pause grows with `wal_bytes`. A full disk raises nothing; the next call tries again.

        Raises:
            JournalError: an I/O error.
        """
        self._require_sound()
        try:
            frames, moved = self._connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        except apsw.FullError:
            self._ballast.give_up()
            return  # everything is still in the log, and the next call tries again
        except apsw.Error as error:
            self._fail("checkpointed", error)
        if frames == moved:
            self.wal_bytes = 0

    def note_time(self, now: float) -> None:
        """Note the manager's time beside the file; see `Journal.note_time`."""
        self._clock_file.note(now)

    def expected_time(self) -> float:
        """Return the time that it should be; see `Journal.expected_time`."""
        return self._clock_file.expected()

    def backup(self, name: str) -> Copy:
        """Begin a backup, or return the state of the one with that name; see `Journal.backup`."""
        self._require_sound()
        current = self._backup
        if current is None or (current.name != name and current.status not in ("copying", "checking")):
            current = self._backup = OnlineBackup(self._connection, self._large_rows, self.backups, name)
        elif current.name != name:
            raise Conflict(f"the backup {current.name} is being made; wait for it")
        return current.state()

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
        os.close(self._mark)
        self._presence.close()
        self._ownership.close()
        self._large_rows.wait()

    def _commit(self, rows: list[Row], texts: Mapping[int, Texts], gone: list[int], newest: int) -> int:
        """Commit, if need be in the space of the ballast; return how many rows there are now.

        A full disk allows one more attempt, as it comes before any sync; an I/O error does not.
        """
        # With durability `os`, a file would not be on disk before its row.
        large = []
        if self.durability == "fsync" and max(map(len, map(_BODY, rows)), default=0) >= LARGE_BYTES:
            large = set_large_aside(rows)
        try:
            if large:
                self._large_rows.write(large)
            return self._transact(rows, texts, gone, newest)
        except (apsw.FullError, NoRoom):
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            if not self._ballast.give_up():
                raise
        if large:
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
            if gone[0] <= self._texts.last:
                self._texts.drop(runs)
        if rows and rows[-1][0] == newest:
            rows[-1] = (*rows[-1][:3], total)
            connection.executemany(INSERT, rows)
        else:
            connection.executemany(INSERT, rows)
            connection.execute(_COUNT, (total, newest))
        if texts:
            self._texts.add(texts)
        connection.execute("COMMIT")
        return total

    def _advance_mark(self, newest: int) -> None:
        """Claim the row *newest*, which is committed, in the mark; sync the claim if that is due."""
        _, _, durable, boot = self._claim
        content = CLAIM.pack(MAGIC, self.incarnation, newest, durable, boot)
        self._slot = SLOTS[0] if self._slot else SLOTS[1]
        os.pwrite(self._mark, content + CHECK.pack(crc32(content)), self._slot)
        if durable and (now := time.monotonic()) >= self._next_mark_sync:
            os.fdatasync(self._mark)
            self._next_mark_sync = now + SYNC_SECONDS

    def _is_in_place(self) -> bool:
        """Return whether the files are where they were at the last look; false if that is not certain."""
        presence = self._presence
        try:
            found = os.stat(presence.directory)  # noqa: PTH116 - a third of the time of Path.stat
        except OSError:
            return False
        place = found.st_dev, found.st_ino, found.st_ctime_ns
        return place == self._place and not presence.mounts.poll(0)

    def _look(self) -> None:
        self._place = self._presence.check()

    def _committed(self, _connection: apsw.Connection, _database: str, pages: int) -> int:
        self.wal_bytes = pages * self._page_bytes
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
        self._broken = (
            f"the journal {self._path} cannot be {verb} ({reason(error)}); nothing accepted is lost: "
            "see to the disk, then start the manager again"
        )
        raise JournalError(self._broken) from error


def rows_of(records: Sequence[tuple[int, AnyEvent]]) -> list[Row]:
    """Return the rows of events."""
    encode, check, mask = encode_event, crc32, CHECK_MASK
    return [(number, body := encode(event), check(body, number & mask), None) for number, event in records]
