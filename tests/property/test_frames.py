"""Whatever happens to the messages of a stream: a frame is read as it was written, or not at all."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from svc.server.journal.jetstream.frames import (
    HEADER_BYTES,
    Frame,
    FrameAssembler,
    FrameError,
    FrameKind,
    FrameOrigin,
    split_frame,
)

SEQUENCES = st.integers(0, (1 << 63) - 1)
FRAMES = st.builds(
    Frame,
    st.sampled_from(FrameKind),
    st.lists(st.tuples(SEQUENCES, st.binary(max_size=90)), max_size=8),
    st.lists(st.tuples(SEQUENCES, SEQUENCES), max_size=5),
    st.binary(max_size=16),
)
#: Frames, and the number of messages after which the writer of each is gone (if it has more).
WRITTEN = st.lists(st.tuples(FRAMES, st.none() | st.integers(0, 5)), max_size=6)
LIMITS = st.integers(HEADER_BYTES + 1, HEADER_BYTES + 200)


def stream_of(written: list[tuple[Frame, int | None]], most: int) -> tuple[list[bytes], list[Frame]]:
    """Return the messages of all frames, and the frames that are whole."""
    messages: list[bytes] = []
    whole = []
    for term, (frame, end) in enumerate(written):
        parts = split_frame(frame, FrameOrigin(term, term + 7, 0), len(messages), most)
        messages += parts[:end]
        if len(parts[:end]) == len(parts):
            whole.append(frame)
    return messages, whole


def read(stream: list[tuple[int, bytes]]) -> list[Frame]:
    """Return the frames up to the first message that is refused."""
    assembler = FrameAssembler(0)
    found = []
    with suppress(FrameError):
        for sequence, message in stream:
            stored = assembler.add(sequence, message)
            if stored:
                found.append(stored.frame)
    return found


@given(WRITTEN, LIMITS)
def test_whole_frames_are_read_and_others_are_not(written, most):
    messages, whole = stream_of(written, most)
    assert read(list(enumerate(messages, 1))) == whole


@given(WRITTEN, LIMITS, st.data())
def test_of_a_stream_that_is_torn_reordered_repeated_or_corrupt_only_a_beginning_is_read(written, most, data):
    messages, whole = stream_of(written, most)
    stream = list(enumerate(messages, 1))
    places = st.integers(0, max(0, len(stream) - 1))
    for _ in range(data.draw(st.integers(1, 3))):
        if not stream:
            break
        place, other = data.draw(places) % len(stream), data.draw(places) % len(stream)
        sequence, message = stream[place]
        match data.draw(st.sampled_from(["lose", "repeat", "swap", "flip", "tear", "renumber"])):
            case "lose":
                del stream[place]
            case "repeat":
                stream.insert(place, stream[place])
            case "swap":
                stream[place], stream[other] = stream[other], stream[place]
            case "flip":
                at = data.draw(st.integers(0, len(message) - 1))
                changed = message[at] ^ data.draw(st.integers(1, 255))
                stream[place] = sequence, message[:at] + bytes([changed]) + message[at + 1 :]
            case "tear":
                stream[place] = sequence, message[: data.draw(st.integers(0, len(message) - 1))]
            case "renumber":
                stream[place] = sequence + data.draw(st.integers(-3, 3)), message
    found = read(stream)
    assert found == whole[: len(found)]


@given(st.lists(st.binary(max_size=200)), st.booleans())
def test_odd_bytes_raise_nothing_but_the_error_of_frames(noise, with_magic):
    for sequence, message in enumerate(noise):
        with suppress(FrameError):
            FrameAssembler().add(sequence, b"svcf" + message if with_magic else message)
