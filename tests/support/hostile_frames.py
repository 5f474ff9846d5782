"""Test frames for a reader: it must refuse all of `CORPUS`; the numbers in `EVERY` make no sense."""

from __future__ import annotations

import struct

import msgspec

from svc.domain import commands as c
from svc.domain.job import NewChunk, Terms

encode = msgspec.msgpack.encode
GOOD = encode((1, [c.Submit("o", [NewChunk(0, Terms("m:f"), [b"x"])]), c.Lease(1, 0.5)]))


def _lengths() -> dict[str, bytes]:
    """Arrays, maps, texts and bytes that announce far more data than there is."""
    heads = {"bin": b"\xc6", "str": b"\xdb", "array": b"\xdd", "map": b"\xdf", "ext": b"\xc9"}
    sizes = (0xFFFFFFFF, 0x7FFFFFFF, 1 << 24, 70_000)
    frames = {}
    for name, head in heads.items():
        for size in sizes:
            bomb = head + struct.pack(">I", size)
            frames[f"{name} of {size}"] = bomb
            frames[f"{name} of {size} as commands"] = b"\x92\x01" + bomb
            frames[f"{name} of {size} as a body"] = b"\x92\x01\x91\x93\xa6submit\xa1o\x91\x93\x00" + bomb
    return frames


def _nested() -> dict[str, bytes]:
    frames = {}
    for depth in (100, 1_000, 100_000, 1_000_000):
        for name, opening in (("arrays", b"\x91"), ("maps", b"\x81\xa1k"), ("arrays of 32", b"\xdd\0\0\0\1")):
            frames[f"{depth} {name}"] = opening * depth
            frames[f"{depth} {name} closed"] = opening * depth + b"\xc0"
            frames[f"{depth} {name} as commands"] = b"\x92\x01" + opening * depth + b"\xc0"
            frames[f"{depth} {name} as a field"] = b"\x92\x01\x91\x92\xa5lease" + opening * depth + b"\xc0"
    return frames


def _wrong() -> dict[str, bytes]:
    """Well-formed values that are not requests."""
    values: tuple[object, ...] = (
        None,
        True,
        -1,
        1 << 63,
        1.5,
        float("nan"),
        "text",
        b"bytes",
        [],
        {},
        [1],
        [1, 2],
        [1, None],
        ["1", []],
        [1, {}],
        [1, [None]],
        [1, [[]]],
        [1, [{}]],
        [1, ["ping"]],
        [1, [["nothing"]]],
        [1, [[1]]],
        [1, [["take", 1]]],
        [1, [["join", "default"]]],
        [1, [["lease", "many"]]],
        [1, [["lease", 1, "long"]]],
        [1, [["lease", None]]],
        [1, [["lease", 1.5]]],
        [1, [["submit"]]],
        [1, [["submit", "o"]]],
        [1, [["submit", 1, []]]],
        [1, [["submit", "o", [[]]]]],
        [1, [["submit", "o", [[0, [], []]]]]],
        [1, [["submit", "o", [["0", ["m:f"], []]]]]],
        [1, [["ack", 1, 0, ["text"], [0.5]]]],
        [1, [["ack", 1, 0, [b""], ["s"]]]],
        [1, [["get", "id"]]],
        [1, [["get", [1]]]],
        [1, [["nack", 1, 0, "error"]]],
        [1, [["hello", "1", "client"]]],
        [1, [["hello", 1]]],
        [1 << 64 - 1],
        [1, [["await", [b"id"]]]],
        [1, [["drain", 1]]],
        [1, [["cancel", None]]],
        [1, [["nack", 1, 0, ["a", "b", "c"], 1, "x"]]],
    )
    return {f"value {place}": encode(value) for place, value in enumerate(values)}


def _torn() -> dict[str, bytes]:
    return {f"the first {size} bytes": GOOD[:size] for size in range(len(GOOD))} | {
        f"{extra!r} after the end": GOOD + extra for extra in (b"\xc0", GOOD, b"\xc1")
    }


def _odd() -> dict[str, bytes]:
    return {f"the byte {byte:#x}": bytes([byte]) for byte in range(256)} | {
        "text that is no UTF-8": b"\x92\x01\x91\x91\xa4\xff\xfe\xfd\xfc",
        "an origin that is no UTF-8": b"\x92\x01\x91\x93\xa6submit\xa2\xff\xff\x90",
        "a date": b"\x92\x01\xd6\xff\0\0\0\0",
    }


CORPUS = {**_lengths(), **_nested(), **_wrong(), **_torn(), **_odd()}


NAN, HUGE = float("nan"), (1 << 63) - 1
EVERY: tuple[c.Command, ...] = (
    c.Submit("o", [NewChunk(0, Terms("m:f"), [b"x"])]),
    c.Submit("o", [NewChunk(HUGE, Terms("m:f"), [b"x"] * 3)]),
    c.Submit("o", [NewChunk(5, Terms("m:f", priority=-HUGE, retries=HUGE), [b""], NAN, "k")]),
    c.Lease(HUGE, NAN),
    c.Lease(-1, -1.0),
    c.Lease(1, float("inf")),
    c.Ack(HUGE, -HUGE, [b""], [NAN]),
    c.Ack(1, 0, [b""], []),
    c.Release(1, -1),
    c.Extend(-HUGE, HUGE),
    c.Get(["o-0", "o-", "-", "", "o-" + "9" * 99]),
    c.List("", "", "", -HUGE),
    c.List("nothing", limit=HUGE),
    c.Await(["o-0"], NAN),
    c.Feed("o", -HUGE, -HUGE, NAN),
    c.Feed("", HUGE, HUGE, -1.0),
    c.Cancel(["o-0"] * 50),
    c.Requeue(["o--1"]),
    c.Recall("w", HUGE, -1, -HUGE),
    c.Stats(),
    c.Members(),
    c.Exposition(),
    c.Leave(),
    c.Ping(),
)
