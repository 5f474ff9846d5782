"""Frames of the replicated journal: whole or ignored, and nothing odd passes for one."""

from __future__ import annotations

import struct
from zlib import crc32

import msgspec
import pytest

from svc.domain.events import Drained
from svc.server.journal.jetstream.frames import (
    FRAME_VERSION,
    HEADER_BYTES,
    PARTS_MAX,
    Frame,
    FrameAssembler,
    FrameError,
    FrameKind,
    FrameOrigin,
    commit_frame,
    split_frame,
)
from svc.server.journal.rows import decode_event, encoded_rows
from tests.support.journals import event

ORIGIN = FrameOrigin(term=3, writer=77, number=5)
#: A frame that needs several messages of `MOST` bytes.
LONG = Frame(FrameKind.COMMIT, [(1, b"a" * 400), (2, b"b" * 100)])
MOST = 160


def messages(frame: Frame = LONG, origin: FrameOrigin = ORIGIN, after: int = 0) -> list[bytes]:
    return split_frame(frame, origin, after, MOST)


def assembled(stream: list[bytes], after: int | None = 0) -> list[Frame]:
    """Return the frames of a stream of messages 1, 2, …."""
    assembler = FrameAssembler(after)
    first = (after or 0) + 1
    stored = (assembler.add(number, message) for number, message in enumerate(stream, first))
    return [each.frame for each in stored if each]


def sealed(message: bytes, place: int, form: str, value: int) -> bytes:
    """Return *message* with another value in its header, and a right checksum."""
    changed = bytearray(message)
    struct.pack_into(form, changed, place, value)
    check = crc32(changed[HEADER_BYTES:], crc32(changed[: HEADER_BYTES - 4]))
    struct.pack_into("!I", changed, HEADER_BYTES - 4, check)
    return bytes(changed)


def test_a_frame_returns_with_its_events_and_its_place():
    records = [(7, event(7)), (9, Drained(1.5, 2))]
    frame = commit_frame(encoded_rows(records), forget=[1, 2, 3, 6])
    [message] = split_frame(frame, ORIGIN, 41, 1 << 20)
    stored = FrameAssembler(41).add(42, message)
    assert stored is not None
    assert [(number, decode_event(body)) for number, body in stored.frame.rows] == records
    stored.frame.require_known()
    assert stored.frame.forget == [(1, 3), (6, 6)]
    assert (stored.origin, stored.first, stored.last) == (ORIGIN, 42, 42)


def test_a_frame_is_split_below_the_limit_and_is_whole_with_its_last_part():
    parts = messages()
    assert len(parts) > 3
    assert max(map(len, parts)) <= MOST
    assert assembled(parts[:-1]) == []
    assert assembled(parts) == [LONG]


@pytest.mark.parametrize("end", [1, 2, 4])
def test_an_unfinished_frame_that_another_follows_is_ignored(end):
    torn = messages()[:end]
    later = FrameOrigin(4, 88, 0)
    assembler = FrameAssembler(0)
    stream = [*torn, *messages(origin=later, after=end)]
    stored = [each for number, message in enumerate(stream, 1) if (each := assembler.add(number, message))]
    assert [each.origin for each in stored] == [later]
    assert assembler.ignored == end


def test_a_stream_may_begin_within_a_frame_whose_beginning_is_purged():
    first, second = messages(), messages(origin=FrameOrigin(3, 77, 6), after=len(messages()))
    assembler = FrameAssembler()
    stream = enumerate([*first[2:], *second], 3)
    stored = [each for number, message in stream if (each := assembler.add(number, message))]
    assert [each.origin.number for each in stored] == [6]
    assert assembler.ignored == len(first) - 2


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        pytest.param([b"hello"], "no frame", id="a message of someone else"),
        pytest.param([b""], "no frame", id="an empty message"),
        pytest.param([messages()[0][:30]], "its end is missing", id="a torn header"),
        pytest.param([messages()[0][:-1]], "checksum", id="a torn part"),
        pytest.param([messages()[0][:-1] + b"x"], "checksum", id="a flipped byte"),
        pytest.param([sealed(messages()[0], 4, "B", FRAME_VERSION + 1)], "version 2", id="a later version"),
        pytest.param([sealed(messages()[0], 37, "!I", PARTS_MAX)], "part 65536 of", id="a part too far"),
        pytest.param([messages()[1], messages()[0]], "it was message 2", id="reordered parts"),
        pytest.param([messages()[0]] * 2, "it was message 1", id="a repeated part"),
        pytest.param(
            [messages()[0], messages(origin=FrameOrigin(3, 77, 6))[1]], "beginning", id="a part of another"
        ),
        pytest.param([*messages(), messages(after=len(messages()))[0]], "frame 5 was", id="a frame twice"),
        pytest.param(
            [messages()[0], messages(origin=FrameOrigin(2, 66, 9), after=1)[0]], "term 3 began", id="old"
        ),
        pytest.param(
            [messages()[0], messages(origin=FrameOrigin(3, 66, 9), after=1)[0]], "two managers", id="one"
        ),
    ],
)  # fmt: skip
def test_a_message_that_does_not_belong_there_is_refused(stream, why):
    with pytest.raises(FrameError, match=why):
        assembled(stream)


def test_a_missing_message_is_noticed():
    with pytest.raises(FrameError, match="follows message 7"):
        FrameAssembler(7).add(9, messages(after=8)[0])


def test_parts_of_two_frames_of_one_origin_make_no_frame():
    other = Frame(FrameKind.COMMIT, [(1, b"c" * 400), (2, b"b" * 100)])
    mixed = [*messages()[:2], *messages(other)[2:]]
    with pytest.raises(FrameError, match="beginning of its frame is missing"):
        assembled(mixed)


def test_a_frame_of_a_later_release_is_refused_with_the_reason():
    later = [9, [], []]
    content = msgspec.msgpack.encode(later)
    [message] = split_frame(Frame(FrameKind.TERM), ORIGIN, 0, 1 << 20)
    header = bytearray(message[:HEADER_BYTES])
    struct.pack_into("!I", header, HEADER_BYTES - 8, crc32(content))
    with pytest.raises(FrameError, match="newer release"):
        assembled([sealed(bytes(header) + content, 4, "B", FRAME_VERSION)])


def test_an_event_of_a_later_release_is_refused_with_the_reason():
    frame = Frame(FrameKind.COMMIT, [(1, msgspec.msgpack.encode(["invented", 1.0]))])
    with pytest.raises(FrameError, match="newer release"):
        frame.require_known()


def test_a_limit_without_room_for_a_part_is_refused():
    with pytest.raises(ValueError, match="no room"):
        split_frame(LONG, ORIGIN, 0, HEADER_BYTES)
    with pytest.raises(ValueError, match="are the most"):
        split_frame(Frame(FrameKind.COMMIT, [(1, b"x" * (PARTS_MAX + 1))]), ORIGIN, 0, HEADER_BYTES + 1)
