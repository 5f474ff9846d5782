"""Reads rows back as events; each row has a checksum, so that a flipped bit is detected."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from zlib import crc32

import apsw
import msgspec

from svc.domain.events import AnyEvent
from svc.errors import JournalError
from svc.server.journal.large_rows import LARGE_BYTES, LargeRows

#: The exceptions that decoding a row may raise; a damaged row may not even hold a blob.
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, TypeError, ValueError)

_REPLAY = "SELECT seq, body, crc, total FROM events ORDER BY seq"
#: The checksum of a row begins with these bits of its number.
CHECK_MASK = 0xFFFFFFFF
_decode: Callable[[bytes], AnyEvent] = msgspec.msgpack.Decoder(AnyEvent).decode

#: A row of the table: number, body, checksum, and in the newest row the number of all rows.
Row = tuple[int, bytes, int, int | None]


def set_large_aside(rows: list[Row], least: int = LARGE_BYTES) -> list[tuple[int, bytes]]:
    """Return (number, content) of each row of *least* bytes or more, and empty the body of that row."""
    large = []
    for place, (number, body, check, total) in enumerate(rows):
        if len(body) >= least:
            large.append((number, body))
            rows[place] = (number, b"", check, total)
    return large


def event_of(sequence: int, body: bytes, check: int | None) -> AnyEvent:
    """Return the event in a row; *check* is None for rows of releases without checksums.

    Raises:
        ValueError: the row is damaged; the other errors in `UNREADABLE` mean the same.
    """
    if check is not None and crc32(body, sequence & CHECK_MASK) != check:
        raise ValueError("its checksum is wrong")
    return _decode(body)


def runs_of(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Return ascending numbers as (first, last) of unbroken runs; forgotten rows are mostly adjacent."""
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs


def checked_rows(
    connection: apsw.Connection, path: Path, large_rows: LargeRows, version: int = 2
) -> Iterator[tuple[int, AnyEvent]]:
    """Yield every (sequence number, event) in order, checked; *large_rows* has the content of empty rows.

    Raises:
        JournalError: a row is damaged, missing, or out of place.
        apsw.Error: the file cannot be read.
    """
    statement = _REPLAY if version > 1 else _REPLAY.replace("crc, total", "NULL, NULL")
    last, count, total = -1, 0, None
    with closing(connection.cursor()) as cursor:
        for sequence, body, check, total in cursor.execute(statement):  # noqa: B007  # used below
            if sequence <= last:
                raise unreadable(path, sequence, "it is out of place")
            try:
                event = event_of(sequence, body or large_rows.read(sequence), check)
            except UNREADABLE as error:
                raise unreadable(path, sequence, error) from None
            yield sequence, event
            last = sequence
            count += 1
    if version > 1 and (total or 0) != count:
        raise JournalError(
            f"the journal {path} has {count} rows and its newest one says {total}; it is damaged: keep "
            "a copy, then restore a backup"
        )


def unreadable(path: Path, sequence: int, why: object) -> JournalError:
    """Return the error for a row that cannot be used."""
    return JournalError(
        f"row {sequence} of the journal {path} cannot be read ({why}); it is damaged or of "
        "a newer release: keep a copy, then start that release or restore a backup"
    )
