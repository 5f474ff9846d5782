"""The long texts of errors in the journal's file: each is stored once, in tables that a replay does not read.

All changes are made in the transaction of the commit that appends or deletes the rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby

import apsw

from svc.broker.error_texts import Packing, Texts, digests_of, unpack
from svc.domain.events import AnyEvent

_FIND = "SELECT id FROM texts WHERE digest = ?"
_ADD = "INSERT INTO texts (digest, compressed, body) VALUES (?, ?, ?) RETURNING id"
_USE = "INSERT INTO text_uses (seq, text) VALUES (?, ?)"
_USED = "SELECT DISTINCT text FROM text_uses WHERE seq BETWEEN ? AND ?"
_DROP_USES = "DELETE FROM text_uses WHERE seq BETWEEN ? AND ?"
_DROP = "DELETE FROM texts WHERE id = ? AND NOT EXISTS (SELECT 1 FROM text_uses WHERE text = id)"
_READ = "SELECT compressed, body FROM texts WHERE digest = ?"
_ALL = "SELECT digest, compressed, body FROM texts"
_USES = "SELECT seq, digest FROM text_uses LEFT JOIN texts ON id = text ORDER BY seq"
_UNUSED = "SELECT count(*) FROM texts WHERE NOT EXISTS (SELECT 1 FROM text_uses WHERE text = id)"


class ErrorTexts:
    """The texts of an open journal."""

    def __init__(self, connection: apsw.Connection, last: int) -> None:
        """Keep the texts in the file of *connection*; *last* is the newest row that has texts."""
        self._connection = connection
        #: The newest row that may have texts; there is nothing to drop for later rows.
        self.last = last

    def add(self, texts: Mapping[int, Texts]) -> None:
        """Store the texts of rows, by the numbers of the rows."""
        packing, known, uses = Packing(), dict[bytes, int](), []
        for number, of_row in texts.items():
            for digest, text in of_row.items():
                if digest not in known:
                    found: int | None = self._connection.execute(_FIND, (digest,)).get
                    known[digest] = found or self._connection.execute(_ADD, (digest, *packing.pack(text))).get
                uses.append((number, known[digest]))
        self._connection.executemany(_USE, uses)
        self.last = max(self.last, *texts)

    def drop(self, runs: Sequence[tuple[int, int]]) -> None:
        """Delete the texts that only the rows in *runs*, as (first, last) each, refer to."""
        for first, last in runs:
            if first <= self.last:
                used = self._connection.execute(_USED, (first, last)).fetchall()
                if used:
                    self._connection.execute(_DROP_USES, (first, last))
                    self._connection.executemany(_DROP, used)

    def read(self, digest: bytes) -> bytes:
        """Return a text.

        Raises:
            ValueError: it is missing or damaged.
        """
        row = self._connection.execute(_READ, (digest,)).fetchone()
        if row is None:
            raise ValueError("the text of its error is missing")
        return unpack(digest, row)


def checked_texts(connection: apsw.Connection) -> Iterator[bytes]:
    """Yield the digest of each text, after checking the text.

    Raises:
        ValueError: a text is damaged.
        apsw.Error: the file cannot be read.
    """
    for digest, compressed, body in connection.execute(_ALL):
        unpack(digest, (compressed, body))
        yield digest


def check_uses(connection: apsw.Connection, rows: Iterator[tuple[int, AnyEvent]]) -> None:
    """Check that *rows* name exactly the texts that the tables list for them, and that no text is unused.

    Raises:
        ValueError: the rows and the tables differ.
        apsw.Error: the file cannot be read.
    """
    named = ((number, digests) for number, event in rows if (digests := digests_of(event)))
    kept = groupby(connection.execute(_USES), key=lambda use: use[0])
    for number, uses in kept:
        row, digests = next(named, (None, set[bytes]()))
        if row != number or {digest for _, digest in uses} != digests:
            raise ValueError(
                f"row {number if row is None else row} does not name the texts that are kept for it"
            )
    if (left := next(named, None)) is not None:
        raise ValueError(f"no text is kept for row {left[0]}")
    if unused := connection.execute(_UNUSED).get:
        raise ValueError(f"{unused} texts belong to no row")
