"""MessagePack is counted before it is decoded for stock clients: msgspec reads it within bounds."""

from __future__ import annotations

import re
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from svc.errors import CodecError
from svc.extensions import ARRAYS, TUPLE
from svc.server.msgpack_scan import CONTAINERS_MAX, FORGEABLE_KEYS_MAX, NESTING_MAX, OBJECTS_MAX, examine

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(),
    st.text(max_size=300),
    st.binary(max_size=300),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=40) | st.dictionaries(st.text() | st.integers(0, 99), inner, max_size=40)
    ),
    max_leaves=60,
)


@given(VALUES)
def test_all_that_is_encoded_passes(value):
    examine(msgspec.msgpack.encode(value))


@given(st.binary(max_size=60))
def test_what_passes_is_one_whole_object(body):
    """The scan makes no objects, so it cannot know whether text is UTF-8, or whether a timestamp exists."""
    try:
        examine(body)
    except CodecError:
        return
    assert not re.search("truncated|trailing", complaint(body))


def complaint(body: bytes) -> str:
    """Return the error of msgspec for *body*."""
    try:
        msgspec.msgpack.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, TypeError) as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "value", ["x" * 70_000, b"x" * 70_000, list(range(70_000)), {str(n): n for n in range(40_000)}]
)
def test_large_counts_are_followed(value):
    examine(msgspec.msgpack.encode(value))


@pytest.mark.parametrize("size", [0, 1, 2, 4, 8, 16, 300, 70_000])
def test_extensions_are_followed(size):
    examine(msgspec.msgpack.encode([msgspec.msgpack.Ext(5, b"x" * size), 1]))


def nested(depth: int) -> bytes:
    return b"\x91" * depth + b"\xc0"


def array(count: int, item: bytes) -> bytes:
    return b"\xdd" + count.to_bytes(4, "big") + item * count


def mapping(keys: list[bytes]) -> bytes:
    return b"\xdf" + len(keys).to_bytes(4, "big") + b"".join(key + b"\xc0" for key in keys)


#: Their hashes are the same.
COLLIDING = [b"\xcf" + (place * (2**61 - 1)).to_bytes(8, "big") for place in range(9)] * 60
TUPLES = [b"\x92" + bytes((place // 100, place % 100)) for place in range(FORGEABLE_KEYS_MAX + 1)]
FLOATS = [b"\xcb" + struct.pack(">d", 2.0**exponent) for exponent in range(FORGEABLE_KEYS_MAX + 1)]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (array(1 << 24, b"\x80"), "lists and mappings"),
        (array(CONTAINERS_MAX, b"\x90"), "lists and mappings"),
        (array(CONTAINERS_MAX, b"\xde\0\0"), "lists and mappings"),
        (array(CONTAINERS_MAX // 3 + 1, b"\xd6\xff" + bytes(4)), "extension types"),
        (array(CONTAINERS_MAX // 3 + 1, b"\xd4\x05\1"), "extension types"),
        (array(CONTAINERS_MAX // 3 + 1, b"\xc7\1\x0a1"), "extension types"),
        (array(CONTAINERS_MAX // 3 + 1, b"\xd4\x7f\0"), "extension types"),
        (array(OBJECTS_MAX, b"\xc0"), "objects"),
        (array(OBJECTS_MAX, b"\xd9\0"), "objects"),
        (nested(NESTING_MAX + 1), "deeper"),
        (b"\x81\xa0" * (NESTING_MAX + 1) + b"\xc0", "deeper"),
        (mapping(COLLIDING), "keys"),
        (mapping(TUPLES), "keys"),
        (mapping(FLOATS), "keys"),
        (array(2, mapping(COLLIDING[:300])), "keys"),
        (b"\xc1", "begins no object"),
        (b"", "ends within"),
        (b"\xdd\xff\xff\xff\xff", "ends within"),
        (b"\xdb\xff\xff\xff\xff", "not one whole"),
        (b"\xc0\xc0", "not one whole"),
        (b"\xa5ab", "not one whole"),
    ],
)
def test_what_is_over_a_bound_or_broken_is_refused(body, told):
    with pytest.raises(CodecError, match=told):
        examine(body)


@pytest.mark.parametrize(
    "body",
    [
        array(CONTAINERS_MAX - 1, b"\x90"),
        array(CONTAINERS_MAX // 3 - 1, b"\xd4\x05\1"),
        array(OBJECTS_MAX - 1, b"\xc0"),
        nested(NESTING_MAX),
        mapping(TUPLES[:-1]),
        array(2, mapping(TUPLES[:200])),
    ],
)
def test_what_is_at_a_bound_passes(body):
    examine(body)


def _tuples(depth: int, inner: bytes) -> bytes:
    for _ in range(depth):
        inner = msgspec.msgpack.encode([msgspec.Raw(inner)])
        inner = msgspec.msgpack.encode(msgspec.msgpack.Ext(TUPLE, inner))
    return inner


@pytest.mark.parametrize("code", sorted(ARRAYS))
def test_the_content_of_an_extension_counts_too(code):
    maps = b"\xdd" + struct.pack(">I", CONTAINERS_MAX) + b"\x80" * CONTAINERS_MAX
    with pytest.raises(CodecError, match="lists and mappings"):
        examine(msgspec.msgpack.encode(msgspec.msgpack.Ext(code, maps)))
    half = b"\xdd" + struct.pack(">I", CONTAINERS_MAX // 2) + b"\x80" * (CONTAINERS_MAX // 2)
    with pytest.raises(CodecError, match="lists and mappings"):
        examine(msgspec.msgpack.encode([msgspec.msgpack.Ext(code, half)] * 2))


def test_extensions_within_extensions_are_counted():
    examine(_tuples(NESTING_MAX // 2 - 1, b"\x01"))
    with pytest.raises(CodecError, match="nests deeper"):
        examine(_tuples(NESTING_MAX, b"\x01"))


@pytest.mark.parametrize("content", [b"", b"\x91", b"\x01\x01", b"\xc1"])
def test_an_extension_has_one_whole_object_in_it(content):
    with pytest.raises(CodecError):
        examine(msgspec.msgpack.encode(msgspec.msgpack.Ext(TUPLE, content)))
