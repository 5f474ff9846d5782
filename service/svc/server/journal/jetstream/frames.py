"""The frames of the replicated journal, and their form in the messages of the stream.

A frame is all that one commit changes. It is encoded once, and split in parts: one message of the stream
for each, as large as the servers take. A message is a header and a part::

    "svcf" | version | term | writer | number | sequence | part | parts | check of the frame | check

All numbers are big-endian. The checks are CRC-32; the last one is of the header before it and of the part.
`sequence` is that of the message in its stream. Its writer knows it beforehand, since an append names the
message that it follows. So each message shows by itself if it was moved, repeated or copied into another
stream. `writer` is a random number: if two managers take the same term by mistake, neither can take a message
of the other for its own.

A frame counts if all its parts are there, one after the other. A writer may end in the middle of a frame.
Then another frame follows, and the unfinished one is ignored. Nothing in it was ever acknowledged.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final
from zlib import crc32

import msgspec

from svc.domain.events import AnyEvent
from svc.server.journal.rows import EVENT_TAGS, UNREADABLE, EncodedRow, decode_event, runs_of, tag_of

#: Grows with each change that an older release would misread.
FRAME_VERSION: Final = 1
_MAGIC: Final = b"svcf"
_HEADER: Final = struct.Struct("!4sBQQQQIII")
_CHECK: Final = struct.Struct("!I")
#: The bytes of a message before its part.
HEADER_BYTES: Final = _HEADER.size + _CHECK.size
#: The most parts of a frame: a message that claims more is damaged.
PARTS_MAX: Final = 1 << 16
NUMBER_MAX: Final = (1 << 64) - 1


class FrameError(ValueError):
    """A message of the stream is no part of a frame, damaged, out of place, or of a newer release."""


class FrameKind(enum.IntEnum):
    """The purpose of a frame.

    `TERM` begins the term of a leader, and is its fence. `COMMIT` has the rows of a turn. `REWRITE` has live
    rows of old frames once more, which are purged next. `DIGEST` has a digest of the leader's state.

    `COPY` begins a copy of another journal, or goes on with it; nobody leads the stream before `COPIED`.
    `MOVED` is the last frame of a stream that was moved elsewhere.
    """

    TERM = 1
    COMMIT = 2
    REWRITE = 3
    DIGEST = 4
    COPY = 5
    COPIED = 6
    MOVED = 7


class Frame(msgspec.Struct, frozen=True, array_like=True):
    """The content of one commit; fields may be added at the end, with a default.

    Attributes:
        kind: its purpose.
        rows: (number, encoded event) of each row; the long texts of errors are inside.
        forget: rows that are gone from here on, as (first, last) of unbroken runs; they come before `rows`.
        digest: of a frame of that kind.
        place: the origin of a copy, as JSON, or the place to which the journal was moved.
    """

    kind: FrameKind
    rows: list[EncodedRow] = []
    forget: list[tuple[int, int]] = []
    digest: bytes = b""
    place: str = ""

    def records(self) -> list[tuple[int, AnyEvent]]:
        """Return the rows as (number, event).

        Raises:
            FrameError: an event cannot be decoded; a newer release wrote it.
        """
        try:
            return [(number, decode_event(body)) for number, body in self.rows]
        except UNREADABLE as error:
            raise FrameError(f"an event in it cannot be read ({error}); a newer release wrote it") from None

    def require_known(self) -> None:
        """Return if this release knows the kinds of all events in the frame.

        Raises:
            FrameError: a newer release has written one.
        """
        try:
            unknown = {tag_of(body) for _, body in self.rows} - EVENT_TAGS
        except IndexError:
            raise FrameError("an event in it is cut off") from None
        if unknown:
            raise FrameError(f"an event in it, {min(unknown)!r}, is unknown; a newer release wrote it")


@dataclass(frozen=True, slots=True)
class FrameOrigin:
    """The place of a frame among all frames.

    Attributes:
        term: the incarnation of its writer.
        writer: a random number that its writer has drawn for the term.
        number: the number of the frame in the term; a later frame has a larger one.
    """

    term: int
    writer: int
    number: int


@dataclass(frozen=True, slots=True)
class StoredFrame:
    """A whole frame of the stream, with the sequence numbers of its first and last message."""

    origin: FrameOrigin
    frame: Frame
    first: int
    last: int


@dataclass(frozen=True, slots=True)
class FramePart:
    """A message of the stream, checked: part `number` of `parts` of a frame with this checksum."""

    origin: FrameOrigin
    sequence: int
    number: int
    parts: int
    check: int
    content: bytes

    def begins(self) -> bool:
        """Return whether it is the first part of its frame."""
        return not self.number

    def continues(self, before: FramePart) -> bool:
        """Return whether it is the part of the same frame that follows *before*."""
        return (self.origin, self.parts, self.check, self.number) == (
            before.origin, before.parts, before.check, before.number + 1,
        )  # fmt: skip


def commit_frame(
    rows: Sequence[EncodedRow], forget: Sequence[int] = (), kind: FrameKind = FrameKind.COMMIT
) -> Frame:
    """Return the frame of rows, and of forgotten rows in ascending order."""
    return Frame(kind, list(rows), runs_of(forget))


def split_frame(frame: Frame, origin: FrameOrigin, after: int, most: int) -> list[bytes]:
    """Return the messages of *frame*, which follow message *after* of the stream, of *most* bytes or fewer.

    Raises:
        ValueError: *most* leaves no room for a part, or the frame needs more than `PARTS_MAX` parts.
    """
    room = most - HEADER_BYTES
    if room < 1:
        raise ValueError(f"a message of {most} bytes has no room for a part of a frame")
    content = _encode(frame)
    parts = max(1, -(-len(content) // room))
    if parts > PARTS_MAX:
        raise ValueError(f"a frame of {len(content)} bytes needs {parts} messages; {PARTS_MAX} are the most")
    whole = crc32(content)
    messages = []
    for part in range(parts):
        place = (after + 1 + part, part, parts, whole)
        header = _HEADER.pack(_MAGIC, FRAME_VERSION, origin.term, origin.writer, origin.number, *place)
        piece = content[part * room : (part + 1) * room]
        messages.append(b"".join((header, _CHECK.pack(crc32(piece, crc32(header))), piece)))
    return messages


def parse_part(message: bytes) -> FramePart:
    """Return a message as a part of a frame, checked.

    Raises:
        FrameError: it is none, is damaged, or is of a newer release.
    """
    if message[: len(_MAGIC)] != _MAGIC:
        raise FrameError("it is no frame of a journal")
    if len(message) < HEADER_BYTES:
        raise FrameError("its end is missing")
    header, content = message[: _HEADER.size], message[HEADER_BYTES:]
    _, version, term, writer, number, sequence, part, parts, whole = _HEADER.unpack(header)
    if version != FRAME_VERSION:
        raise FrameError(f"its form has version {version}, and this release reads {FRAME_VERSION}")
    (check,) = _CHECK.unpack_from(message, _HEADER.size)
    if crc32(content, crc32(header)) != check:
        raise FrameError("its checksum is wrong")
    if not part < parts <= PARTS_MAX:
        raise FrameError(f"it says that it is part {part} of {parts}")
    return FramePart(FrameOrigin(term, writer, number), sequence, part, parts, whole, content)


def moved_to(message: bytes) -> str:
    """Return the place to which a journal was moved, if *message* says so; else an empty text."""
    try:
        part = parse_part(message)
        frame = _decode(part.content)
    except (FrameError, *UNREADABLE):
        return ""
    return frame.place if frame.kind is FrameKind.MOVED and part.parts == 1 else ""


@dataclass
class FrameAssembler:
    """Makes whole frames of the messages of a stream, in their order.

    Attributes:
        after: the sequence number of the last message before those to come; None if it is not known.
        ignored: the messages of unfinished frames so far.
    """

    after: int | None = None
    ignored: int = 0
    _held: list[FramePart] = field(default_factory=list)
    _last: FrameOrigin | None = None

    def add(self, sequence: int, message: bytes) -> StoredFrame | None:
        """Take the next message, and return the frame that is whole by it, if one is.

        Raises:
            FrameError: the message is damaged, or it does not belong at this place of this stream. No further
                message can be taken.
        """
        part = parse_part(message)
        if part.sequence != sequence:
            raise FrameError(f"it was message {part.sequence} when it was written")
        if self.after is not None and sequence != self.after + 1:
            raise FrameError(f"it follows message {self.after}: those between them are missing")
        if not self._hold(part):
            return None
        self.after = sequence
        return self._whole() if part.number + 1 == part.parts else None

    def _hold(self, part: FramePart) -> bool:
        """Add *part* to those held, or ignore it: the beginning of its frame was purged."""
        if part.begins():
            self._check_order(part.origin)
            self.ignored += len(self._held)
            self._held = [part]
            self._last = part.origin
        elif self._held and part.continues(self._held[-1]):
            self._held.append(part)
        elif self._last is None:
            self.ignored += 1
            self.after = part.sequence
            return False
        else:
            raise FrameError("the beginning of its frame is missing")
        return True

    def _check_order(self, origin: FrameOrigin) -> None:
        last = self._last
        if last is None or origin.term > last.term:
            return
        if origin.term < last.term:
            raise FrameError(f"it is of term {origin.term}, and term {last.term} began before it")
        if origin.writer != last.writer:
            raise FrameError(f"two managers have written in term {origin.term}")
        if origin.number <= last.number:
            raise FrameError(f"it is of frame {origin.number}, and frame {last.number} was before it")

    def _whole(self) -> StoredFrame:
        held, self._held = self._held, []
        content = held[0].content if len(held) == 1 else b"".join(part.content for part in held)
        if crc32(content) != held[0].check:
            raise FrameError("the checksum of its frame is wrong")
        try:
            frame = _decode(content)
        except UNREADABLE as error:
            raise FrameError(f"its frame cannot be read ({error}); a newer release wrote it") from None
        return StoredFrame(held[0].origin, frame, held[0].sequence, held[-1].sequence)


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Frame).decode
