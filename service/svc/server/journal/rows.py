"""Reads rows back as events; each row has a checksum, so that a flipped bit is detected."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, TypeVar, get_args
from zlib import crc32

import apsw
import msgspec

from svc.broker.error_texts import Texts, set_aside
from svc.domain.events import AnyEvent, Failed
from svc.errors import JournalError
from svc.server.journal.large_rows import LARGE_BYTES, LargeRows

#: The exceptions that decoding a row may raise; a damaged row may not even hold a blob.
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, TypeError, ValueError)

INSERT = "INSERT INTO events (seq, body, crc, total) VALUES (?, ?, ?, ?)"
_REPLAY = "SELECT seq, body, crc, total FROM events ORDER BY seq"
#: The checksum of a row begins with these bits of its number.
CHECK_MASK = 0xFFFFFFFF
#: An event as the bytes of a row, and back; `decode_event` raises one of `UNREADABLE`.
encode_event: Callable[[AnyEvent], bytes] = msgspec.msgpack.Encoder().encode
decode_event: Callable[[bytes], AnyEvent] = msgspec.msgpack.Decoder(AnyEvent).decode

#: The tags of all kinds of events.
EVENT_TAGS: Final = frozenset(str(kind.__struct_config__.tag).encode() for kind in get_args(AnyEvent))
#: That of a failed attempt, the only kind with long texts.
FAILED_TAG: Final = str(Failed.__struct_config__.tag).encode()
#: The first byte of an array of 16 items or more; two bytes with its length follow.
_LONG_ARRAY = 0xDC
#: An event under its number, encoded.
EncodedRow = tuple[int, bytes]
#: An event under its number, encoded or not.
Record = TypeVar("Record", bound=tuple[int, object])

#: A row of the table: number, body, checksum, and in the newest row the number of all rows.
Row = tuple[int, bytes, int, int | None]


def encoded_rows(records: Iterable[tuple[int, AnyEvent]]) -> list[EncodedRow]:
    """Return events with their numbers as rows of other engines have them: each encoded."""
    encode = encode_event
    return [(number, encode(event)) for number, event in records]


def due_rows(
    records: Sequence[Record], gone: set[int], newest: int
) -> tuple[Sequence[Record], set[int], set[int]]:
    """Return the records to write, the numbers to delete now, and those to delete later.

    The newest row stays until there is a newer one, even if it is to be forgotten. So the highest number in a
    journal never decreases: it can be compared with a mark, and numbers go on behind it after a recovery.

    Args:
        records: events under their numbers, or their bytes.
        gone: the numbers of rows of no more use.
        newest: the newest number, with those of *records*.
    """
    records = [record for record in records if record[0] == newest or record[0] not in gone]
    return records, gone - {newest}, gone & {newest}


def tag_of(body: bytes) -> bytes:
    """Return the tag of an encoded event: its first item, a short string."""
    place = 3 if body[0] == _LONG_ARRAY else 1
    return body[place + 1 : place + 1 + (body[place] & 0x1F)]


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
    return decode_event(body)


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


def texts_aside(encoded: Sequence[EncodedRow]) -> tuple[list[EncodedRow], Mapping[int, Texts]]:
    """Return encoded rows without the long texts of failed attempts, and those texts."""
    failed = [(number, decode_event(body)) for number, body in encoded if tag_of(body) == FAILED_TAG]
    short, texts = set_aside(failed)
    rows = dict(encoded) | dict(encoded_rows(short))
    return list(rows.items()), texts


def with_checks(encoded: Sequence[EncodedRow]) -> list[Row]:
    """Return the rows of encoded events."""
    check, mask = crc32, CHECK_MASK
    return [(number, body, check(body, number & mask), None) for number, body in encoded]
