"""The output of attempts in a file of its own beside the journal, an SQLite database without syncs.

What it holds is no promise: a file that cannot be read is begun anew. No method raises, because a fault here
must not stop the queue.
"""

from __future__ import annotations

import contextlib
import heapq
import math
import os
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, Final

import apsw
import structlog

from svc.broker.outputs import (
    ATTEMPTS_NAMED,
    DROPPED_MAX,
    PIECE_OVERHEAD,
    AnswerPart,
    DroppedPieces,
    FoundPieces,
    all_of,
)
from svc.domain.field_bounds import NUMBER_MAX
from svc.domain.job import OutputPiece, OutputStream

#: What follows the name of the journal.
OUTPUT_SUFFIX: Final = ".output"
_SCHEMA: Final = """
CREATE TABLE pieces (
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    job TEXT NOT NULL, attempt INTEGER NOT NULL, stream INTEGER NOT NULL,
    start INTEGER NOT NULL, stop INTEGER NOT NULL, data BLOB NOT NULL
);
CREATE UNIQUE INDEX by_start ON pieces (job, attempt, stream, start, stop);
CREATE INDEX by_place ON pieces (job, attempt, place);
CREATE TABLE total (bytes INTEGER NOT NULL);
INSERT INTO total VALUES (0);
PRAGMA user_version = 1;
"""
_PRAGMAS: Final[dict[str, str | int]] = {
    "locking_mode": "EXCLUSIVE",
    "journal_mode": "WAL",
    "synchronous": "OFF",
    "journal_size_limit": 1 << 20,
    "wal_autocheckpoint": 256,
}
_ADD: Final = (
    "INSERT OR IGNORE INTO pieces (job, attempt, stream, start, stop, data) VALUES (?, ?, ?, ?, ?, ?)"
)
#: Pieces between the beginning and the end of a stream.
_MIDDLE: Final = """
DELETE FROM pieces WHERE job = ? AND attempt = ? AND stream = ? AND start >= ? AND start < ? AND stop <= ?
RETURNING stop - start
"""
_OLDEST: Final = """
DELETE FROM pieces WHERE place IN (SELECT place FROM pieces ORDER BY place LIMIT ?) RETURNING length(data)
"""
#: The data of another stream is not read.
_FIND: Final = """
SELECT place, attempt, stream, start, CASE WHEN ?4 IN (0, stream) THEN data END FROM pieces
WHERE job = ?1 AND attempt = ?2 AND place > ?3 ORDER BY place
"""
#: One step in the index; `DISTINCT` would go through all pieces of the job.
_ATTEMPT_BEFORE: Final = "SELECT max(attempt) FROM pieces WHERE job = ? AND attempt < ?"
#: Streams that one command trims at most, to bound its time; the others are trimmed with their next piece.
_TRIMS: Final = 1000
_NEWEST: Final = "DELETE FROM pieces WHERE place > ? RETURNING length(data)"
#: Pieces that are dropped at once if there is no room.
_DROPPED_AT_ONCE: Final = 64
#: Bytes of the bound for SQLite's log and for what one command adds before the oldest is dropped.
_RESERVE_BYTES: Final = 4 * 1024 * 1024
#: The smallest file that has a bound by its pages; a smaller one is bounded by what is in it.
_PAGED_BYTES: Final = 1024 * 1024


class OutputFile:
    """Keeps output in the file *path*, up to *limit* bytes."""

    def __init__(self, path: Path, limit: int) -> None:
        self._path = path
        self.limit = limit
        self._log = structlog.get_logger("svc.manager")
        self._connection: apsw.Connection | None = None
        self._size = 0
        #: The bytes of all pages with content: SQLite fills no page to its last byte.
        self._paged_limit = max(limit - _RESERVE_BYTES, limit * 3 // 4) if limit >= _PAGED_BYTES else math.inf
        with self._faults_logged():
            self._connection, self._size = _opened(path)

    def add(self, pieces: list[OutputPiece], keep: int) -> DroppedPieces:
        """See `OutputStore.add`."""
        connection = self._connection
        if connection is None:
            return all_of(pieces, "fault")
        with self._faults_logged(), connection:
            size, trims, last = self._size, 0, _last_place(connection)
            for stream, of_stream in groupby(pieces, _stream_of):
                stop = 0
                for piece in of_stream:
                    size += _add(connection, piece)
                    stop = max(stop, piece.offset + len(piece.data))
                if stop - keep > keep and trims < _TRIMS:
                    trims += 1
                    size -= _trim(connection, stream, keep, stop - keep)
            lengths: list[int] = []
            while size > self.limit or _paged(connection) > self._paged_limit:
                few = len(lengths) < DROPPED_MAX
                rows: Any = connection.execute(*(_OLDEST, (_DROPPED_AT_ONCE,)) if few else (_NEWEST, (last,)))
                found = [length for (length,) in rows]
                lengths += found
                size -= sum(found) + PIECE_OVERHEAD * len(found)
                if not found or not few:
                    break
            dropped = DroppedPieces(len(lengths), sum(lengths))
            connection.execute("UPDATE total SET bytes = ?", (size,))
            self._size = size
            return dropped
        return all_of(pieces, "fault")  # nothing of it was kept

    def find(self, job: str, attempt: int, stream: int, cursor: int) -> FoundPieces:
        """See `OutputStore.find`."""
        part = AnswerPart(cursor)
        with self._faults_logged():
            rows = [self._rows(job, each, stream, cursor) for each in self._chosen(job, attempt)]
            for place, of_attempt, of_stream, start, data in heapq.merge(*rows, key=itemgetter(0)):
                passed = data is None
                piece = None if passed else OutputPiece(job, of_attempt, OutputStream(of_stream), start, data)
                if not part.add(place, piece):
                    break
        return part.found()

    def _rows(self, job: str, attempt: int, stream: int, cursor: int) -> Iterator[Any]:
        """Return the pieces of one attempt after *cursor*, each read when it is asked for."""
        if self._connection is None:
            return iter(())
        return iter(self._connection.execute(_FIND, (job, attempt, cursor, stream)))

    def _chosen(self, job: str, attempt: int) -> list[int]:
        return [attempt] if attempt else self.attempts(job)

    def attempts(self, job: str) -> list[int]:
        """See `OutputStore.attempts`."""
        found: list[int] = []
        before = NUMBER_MAX + 1
        with self._faults_logged():
            while self._connection is not None and len(found) < ATTEMPTS_NAMED:
                rows: Any = self._connection.execute(_ATTEMPT_BEFORE, (job, before))
                ((before,),) = rows
                if before is None:
                    break
                found.append(before)
        return found[::-1]

    def size(self) -> int:
        """See `OutputStore.size`."""
        return self._size

    def close(self) -> None:
        """See `OutputStore.close`."""
        if self._connection is not None:
            with self._faults_logged():
                self._connection.close()
            self._connection = None

    @contextlib.contextmanager
    def _faults_logged(self) -> Iterator[None]:
        """Log an error of the file in place of raising it, also of a value that SQLite cannot store."""
        try:
            yield
        except (apsw.Error, OSError, OverflowError, UnicodeError) as error:
            self._log.warning("output_not_kept", path=str(self._path), error=str(error))


def _add(connection: apsw.Connection, piece: OutputPiece) -> int:
    """Add a piece; return the bytes by which the file grew."""
    stop = piece.offset + len(piece.data)
    connection.execute(_ADD, (*_stream_of(piece), piece.offset, stop, piece.data))
    return len(piece.data) + PIECE_OVERHEAD if connection.changes() else 0


def _trim(connection: apsw.Connection, stream: tuple[str, int, int], begin: int, end: int) -> int:
    """Delete the pieces of a stream between *begin* and *end*; return the bytes by which the file shrank."""
    lengths = list(connection.execute(_MIDDLE, (*stream, begin, end, end)))
    return sum(int(length) + PIECE_OVERHEAD for (length,) in lengths)


def _stream_of(piece: OutputPiece) -> tuple[str, int, int]:
    return piece.id, piece.attempt, int(piece.stream)


def _last_place(connection: apsw.Connection) -> int:
    rows: Any = connection.execute("SELECT coalesce(max(place), 0) FROM pieces")
    ((last,),) = rows
    return int(last)


def _paged(connection: apsw.Connection) -> int:
    """Return the bytes of all pages that have content."""
    total: Any = connection.pragma("page_count")
    free: Any = connection.pragma("freelist_count")
    size: Any = connection.pragma("page_size")
    return int((total - free) * size)


def _opened(path: Path) -> tuple[apsw.Connection, int]:
    """Return a connection to the file, which is made anew if it cannot be read, and the bytes in it."""
    try:
        return _connected(path)
    except apsw.Error:
        for each in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
            each.unlink(missing_ok=True)
        return _connected(path)


def _connected(path: Path) -> tuple[apsw.Connection, int]:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    connection = apsw.Connection(str(path))
    try:
        # One by one: a cursor that is not read to its end stops at the first pragma that has a row.
        for name, value in _PRAGMAS.items():
            connection.pragma(name, value)
        version: Any = connection.pragma("user_version")
        if not version:
            with connection:
                connection.execute(_SCHEMA)
        rows: Any = connection.execute("SELECT bytes FROM total")
        ((size,),) = rows
    except BaseException:
        connection.close()
        raise
    return connection, int(size)
