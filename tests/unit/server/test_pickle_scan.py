"""Requests of plain clients: what is read, what is refused, and that refusing is harmless."""

import collections
import datetime as dt
import functools
import os
import pickle
import pickletools
import struct
import sys
import time
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from service.errors import BadRequest
from service.server.pickle_machine import FORGEABLE_KEYS_MAX, NESTING_MAX
from service.server.pickle_scan import loads_plain

ALLOWED = {
    "PROTO", "FRAME", "STOP", "NONE", "NEWTRUE", "NEWFALSE",
    "INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
    "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8",
    "MARK", "EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3",
    "EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS",
    "EMPTY_SET", "ADDITEMS", "FROZENSET",
    "MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT", "GET", "BINGET", "LONG_BINGET",
}  # fmt: skip
OPCODES = {opcode.name: opcode.code.encode("latin-1") for opcode in pickletools.opcodes}
PROTOCOLS = range(6)

#: One message for each opcode that is read; together with what it means.
EXAMPLES = {
    "PROTO": (b"\x80\x02N.", None),
    "FRAME": (b"\x80\x04\x95\x02\0\0\0\0\0\0\0N.", None),
    "STOP": (b"N.", None),
    "NONE": (b"N.", None),
    "NEWTRUE": (b"\x88.", True),
    "NEWFALSE": (b"\x89.", False),
    "INT": (b"(I-12\nI01\nt.", (-12, True)),
    "LONG": (b"L123456789012345678901L\n.", 123456789012345678901),
    "BININT": (b"J\xff\xff\xff\xff.", -1),
    "BININT1": (b"K\xff.", 255),
    "BININT2": (b"M\xff\xff.", 65535),
    "LONG1": (b"\x8a\x09\0\0\0\0\0\0\0\0\x01.", 1 << 64),
    "LONG4": (b"\x8b\x02\0\0\0\xff\x7f.", 32767),
    "FLOAT": (b"F1.5\n.", 1.5),
    "BINFLOAT": (b"G?\xf8\0\0\0\0\0\0.", 1.5),
    "UNICODE": (b"Vna\\u00efve\n.", "naïve"),
    "SHORT_BINUNICODE": (b"\x8c\x02\xc3\xaf.", "ï"),
    "BINUNICODE": (b"X\x02\0\0\0\xc3\xaf.", "ï"),
    "BINUNICODE8": (b"\x8d\x02\0\0\0\0\0\0\0\xc3\xaf.", "ï"),
    "SHORT_BINBYTES": (b"C\x02ab.", b"ab"),
    "BINBYTES": (b"B\x02\0\0\0ab.", b"ab"),
    "BINBYTES8": (b"\x8e\x02\0\0\0\0\0\0\0ab.", b"ab"),
    "BYTEARRAY8": (b"\x96\x02\0\0\0\0\0\0\0ab.", bytearray(b"ab")),
    "MARK": (b"(t.", ()),
    "EMPTY_TUPLE": (b").", ()),
    "TUPLE": (b"(NNNNt.", (None,) * 4),
    "TUPLE1": (b"N\x85.", (None,)),
    "TUPLE2": (b"NN\x86.", (None, None)),
    "TUPLE3": (b"NNN\x87.", (None, None, None)),
    "EMPTY_LIST": (b"].", []),
    "LIST": (b"(K\x01l.", [1]),
    "APPEND": (b"]K\x01a.", [1]),
    "APPENDS": (b"](K\x01K\x02e.", [1, 2]),
    "EMPTY_DICT": (b"}.", {}),
    "DICT": (b"(K\x01K\x02d.", {1: 2}),
    "SETITEM": (b"}K\x01K\x02s.", {1: 2}),
    "SETITEMS": (b"}(K\x01K\x02K\x03K\x04u.", {1: 2, 3: 4}),
    "EMPTY_SET": (b"\x80\x04\x8f.", set()),
    "ADDITEMS": (b"\x80\x04\x8f(K\x01\x90.", {1}),
    "FROZENSET": (b"\x80\x04(K\x01\x91.", frozenset({1})),
    "MEMOIZE": (b"\x80\x04N\x94h\x00\x86.", (None, None)),
    "PUT": (b"Np0\ng0\n\x86.", (None, None)),
    "BINPUT": (b"Nq\x00h\x00\x86.", (None, None)),
    "LONG_BINPUT": (b"Nr\0\0\0\0h\x00\x86.", (None, None)),
    "GET": (b"Np0\ng0\n\x86.", (None, None)),
    "BINGET": (b"Nq\x00h\x00\x86.", (None, None)),
    "LONG_BINGET": (b"Nq\x00j\0\0\0\0\x86.", (None, None)),
}


def test_every_opcode_is_either_read_or_refused_on_purpose():
    assert set(EXAMPLES) == ALLOWED
    assert set(OPCODES) > ALLOWED


@pytest.mark.parametrize("name", sorted(ALLOWED))
def test_an_opcode_of_plain_data_is_read(name):
    message, meaning = EXAMPLES[name]
    found = loads_plain(message)
    assert found == meaning
    assert type(found) is type(meaning)
    assert OPCODES[name] in message


@pytest.mark.parametrize("name", sorted(set(OPCODES) - ALLOWED))
@pytest.mark.parametrize("before", [b"", b"\x80\x04", b"\x80\x04(N]", b"N" * 100, b"]q\x00Nah\x00"])
def test_an_opcode_of_anything_else_is_refused_by_name(name, before):
    with pytest.raises(BadRequest, match=rf"opcode {name}\)"):
        loads_plain(before + OPCODES[name] + b"\x01\0\0\0\n" * 4 + b".")


def test_a_byte_that_is_no_opcode_is_refused():
    known = {code[0] for code in OPCODES.values()}
    for code in set(range(256)) - known:
        with pytest.raises(BadRequest):
            loads_plain(bytes([code]) + b".")


REQUESTS = [
    (None, "dummy", (), {}),
    (None, "create", ("tasks",), {}),
    (None, "accept_connection", ("MainProcess|Thread-1 (run)",), {}),
    ("7f0011223344", "put", (("module:function", (1, 2.5, None, True), {"key": "naïve"}),), {}),
    ("7f0011223344", "get", (), {"block": True, "timeout": 1e-3}),
    (
        "7f0011223344",
        "put",
        ([[], {}, (), "", [{"a": [1, (2,)]}], -1, 1 << 40, -(1 << 80), "x" * 70_000],),
        {},
    ),
    ("7f0011223344", "put", (list(range(3000)),), {}),
    ("7f0011223344", "put", ({str(i): i for i in range(3000)},), {}),
    ("7f0011223344", "put", ([{"id": i, "name": f"n{i}"} for i in range(500)],), {}),
]
NEWER = [
    (3, b"\0bytes\xff" * 100),
    (3, b""),
    (4, {1, "a", (2, 3)}),
    (4, frozenset({"a", None})),
    (4, set(range(5000))),
    (5, bytearray(b"ab" * 500)),
]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("request_", REQUESTS, ids=[request[1] for request in REQUESTS])
def test_requests_of_every_protocol_are_read(request_, protocol):
    message = pickle.dumps(request_, protocol)
    assert loads_plain(message) == request_
    assert loads_plain(memoryview(message)) == request_
    assert loads_plain(bytearray(message)) == request_


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("since", "value"), NEWER, ids=[f"{type(v).__name__}-{s}" for s, v in NEWER])
def test_kinds_are_read_from_the_protocol_on_that_has_them_as_data(value, since, protocol):
    """Older protocols write them as a call of their class."""
    message = pickle.dumps(("i", "put", (value,), {}), protocol)
    if protocol >= since:
        assert loads_plain(message) == ("i", "put", (value,), {})
    else:
        with pytest.raises(BadRequest, match=r"opcode (STACK_)?GLOBAL"):
            loads_plain(message)


@pytest.mark.parametrize("message", [b"NN.", b"(N.", b"N\x80\x04\x85.", b"Nq\x05."])
def test_an_odd_but_harmless_request_is_read_or_refused(message):
    """No pickler leaves objects over, changes protocol midway or skips memo numbers."""
    with suppress(BadRequest):
        assert loads_plain(message) in (None, (None,))


def test_shared_objects_stay_shared():
    shared = {"a": [1, 2]}
    found = loads_plain(pickle.dumps([shared, (shared, shared["a"])]))
    assert found == [shared, (shared, shared["a"])]
    assert isinstance(found, list)
    assert found[0] is found[1][0]
    assert found[0]["a"] is found[1][1]


def test_a_pickle_by_the_pure_python_pickler_is_read():
    for protocol in PROTOCOLS:
        message = pickle._dumps(REQUESTS[5], protocol)  # type: ignore[attr-defined]
        assert loads_plain(message) == REQUESTS[5]


def test_a_small_request_takes_microseconds():
    """The target is 15 µs for a put; ten times that leaves room for a busy machine."""
    message = pickle.dumps(("7f0011223344", "put", (("module:function", (1, 2), {"a": 3}),), {}))
    best = min(timed(message, 200) for _ in range(20))
    assert best < 150e-6


def timed(message: bytes, count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        loads_plain(message)
    return (time.perf_counter() - start) / count


# What follows is meant to do harm. A file at CANARY would show that code was run.

CANARY = f"svc-canary-{os.getpid()}"


class Call:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., object], *args: object, state: object = None) -> None:
        self.call = (function, args, *([state] if state is not None else []))

    def __reduce__(self):
        return self.call


class Anything:
    pass


class Slotted:
    def __reduce_ex__(self, protocol):
        return (Anything, (), None, iter([1, 2]), iter([("a", 1)]))


def nested(depth: int, wrap: Callable[[object], object]) -> bytes:
    value: object = None
    for _ in range(depth):
        value = wrap(value)
    sys.setrecursionlimit(10_000)
    try:
        return pickle.dumps(value)
    finally:
        sys.setrecursionlimit(1000)


def laughs(levels: int, wrap: type) -> bytes:
    value: object = wrap(["ha"] * 10)
    for _ in range(levels):
        value = wrap([value] * 10)
    return pickle.dumps(value)


def touch(*words: str) -> bytes:
    return " ".join(["touch", CANARY, *words]).encode()


def text(value: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value


def cycle() -> bytes:
    loop: list[object] = []
    loop.append((loop,))
    return pickle.dumps(loop)


COLLIDING = [(i * (2**61 - 1)) for i in range(1, FORGEABLE_KEYS_MAX + 2)]

HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "stop alone": b".",
    "nothing but a protocol": b"\x80\x04",
    "two stops": b"N..",
    "bytes after stop": b"N.cos\nsystem\n",
    "protocol 6": b"\x80\x06N.",
    "protocol 255": b"\x80\xffN.",
    "os.system, protocol 0": b"cos\nsystem\n(V" + touch() + b"\ntR.",
    "posix.system, protocol 2": b"\x80\x02cposix\nsystem\n" + text(touch()) + b"\x85R.",
    "eval": b"cbuiltins\neval\n(V__import__('os').system('" + touch() + b"')\ntR.",
    "python 2 names": b"c__builtin__\nexec\n(Vopen('" + CANARY.encode() + b"','w')\ntR.",
    "stack global": b"\x80\x04\x8c\x05posix\x8c\x06system\x93" + text(touch()) + b"\x85R.",
    "stack global, dotted": b"\x80\x04\x8c\x02os\x8c\x0apath.os.system\x93" + text(touch()) + b"\x85R.",
    "stack global by memo": b"\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x86h\x00h\x01\x93.",
    "inst": b"(V" + touch() + b"\nios\nsystem\n.",
    "obj": b"(cos\nsystem\nV" + touch() + b"\no.",
    "newobj": b"\x80\x02cbuiltins\nlist\n)\x81.",
    "newobj_ex": b"\x80\x04cbuiltins\nlist\n)}\x92.",
    "build on a dict": b"}}b.",
    "build on a list": b"]}b.",
    "reduce of data": b"]]R.",
    "newobj of data": b"\x80\x02])\x81.",
    "extension 1": b"\x80\x02\x82\x01.",
    "extension 2": b"\x80\x02\x83\x01\x00.",
    "extension 4": b"\x80\x02\x84\x01\0\0\0.",
    "persistent id": b"P" + touch() + b"\n.",
    "binary persistent id": text(touch()) + b"Q.",
    "out of band buffer": b"\x80\x05\x97.",
    "read-only buffer": b"\x80\x05\x97\x98.",
    "read-only data": b"\x80\x05C\x01a\x98.",
    "pop": b"NN0.",
    "pop to mark": b"N(N1.",
    "dup": b"N2\x86.",
    "dup bomb": b"]" + b"2\x86" * 40 + b".",
    "python 2 string": b"S'a'\n.",
    "python 2 binary string": b"U\x01a.",
    "python 2 long binary string": b"T\x01\0\0\0a.",
    "os.system": pickle.dumps(Call(os.system, touch().decode())),
    "os.system, protocol 0 again": pickle.dumps(Call(os.system, touch().decode()), 0),
    "os.system, protocol 5": pickle.dumps(Call(os.system, touch().decode()), 5),
    "os.open as an argument": pickle.dumps(("i", "put", (Call(os.open, CANARY, os.O_CREAT),), {})),
    "path method": pickle.dumps(("i", "put", (), {"a": Call(Path.touch, Path(CANARY))})),
    "getattr chain": pickle.dumps(Call(getattr, Path(CANARY), "touch")),
    "partial": pickle.dumps(functools.partial(os.system, touch().decode())),
    "an object": pickle.dumps(Anything()),
    "an object with items": pickle.dumps(Slotted()),
    "a class": pickle.dumps(Anything),
    "a function": pickle.dumps(os.system),
    "an exception": pickle.dumps(OSError("x")),
    "an ordered dict": pickle.dumps(collections.OrderedDict(a=1)),
    "a date": pickle.dumps(dt.date(2026, 1, 1)),
    "an ellipsis": pickle.dumps(...),
    "a complex number": pickle.dumps(1j),
    "a range": pickle.dumps(range(3)),
    "memo bomb, 9 bytes": b"\x80\x02Nr\xff\xff\xff\x1f.",
    "memo bomb, text": b"Np536870911\n.",
    "memo bomb, after real ones": b"\x80\x04N\x94N\x94\x86r\xff\xff\xff\x0f.",
    "memo number too long": b"Np" + b"9" * 5000 + b"\n.",
    "memo number negative": b"Np-1\n.",
    "memo number with a space": b"N\x94g 0\n\x86.",
    "put of nothing": b"\x80\x04\x94N.",
    "get of nothing": b"h\x00.",
    "get of the unknown": b"Nq\x00h\x01\x86.",
    "get of the far unknown": b"Nq\x00j\xff\xff\xff\xff\x86.",
    "a list that contains itself": b"]q\x00h\x00a.",
    "a tuple in a list that contains the tuple": cycle(),
    "a list that grows after it was put away": b"]q\x00\x85h\x00Na\x86.",
    "count beyond the end": b"X\xff\xff\xff\x7fabc.",
    "count of 8 bytes beyond the end": b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
    "negative count of 8 bytes": b"\x8d\xff\xff\xff\xff\xff\xff\xff\xffabc.",
    "bytearray beyond the end": b"\x80\x05\x96\0\0\0\0\x04\0\0\0abc.",
    "frame beyond the end": b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.",
    "frame of the whole gibibyte": b"\x80\x04\x95\0\0\0\x40\0\0\0\0N.",
    "integer of negative length": b"\x8b\xff\xff\xff\xff.",
    "integer of a mebibyte": b"\x8b\0\0\x10\0" + b"\x01" * (1 << 20) + b".",
    "integer of a million digits": b"L" + b"7" * 1_000_000 + b"L\n.",
    "another one": b"I" + b"7" * 1_000_000 + b"\n.",
    "float of a million digits": b"F" + b"7" * 1_000_000 + b"\n.",
    "integer that is none": b"Iabc\n.",
    "float that is none": b"F1.2.3\n.",
    "line without an end": b"Vabc.",
    "text that is no UTF-8": b"X\x01\0\0\0\xff.",
    "text with a broken escape": b"V\\u12\n.",
    "deep tuples": nested(NESTING_MAX + 1, lambda value: (value,)),
    "deep lists": nested(NESTING_MAX + 1, lambda value: [value]),
    "deep dicts": nested(NESTING_MAX + 1, lambda value: {"a": value}),
    "tuples too deep to hash": b"N" + b"\x85" * 100_000 + b"N\x86.",
    "tuples too deep to hash, as a key": b"}N" + b"\x85" * 200_000 + b"Ns.",
    "frozensets too deep to hash": b"\x80\x04" + b"(" * 1000 + b"\x91" * 1000 + b".",
    "a hundred thousand marks": b"(" * 100_000 + b"t" * 100_000 + b".",
    "deep by the memo": b"\x80\x04]\x94" + b"".join(b"]\x94h" + bytes([i]) + b"a" for i in range(200)) + b".",
    "billion laughs": laughs(9, list),
    "billion laughs in tuples": laughs(9, tuple),
    "laughs by halves": b"\x80\x04N\x94" + b"".join(b"h%c\x86\x94" % i for i in range(60)) + b".",
    "colliding keys": pickle.dumps(dict.fromkeys(COLLIDING)),
    "colliding members": pickle.dumps(set(COLLIDING)),
    "many tuples as keys": pickle.dumps({(i, i): None for i in range(FORGEABLE_KEYS_MAX + 1)}),
    "a list as a key": b"}]Ns.",
    "a set of lists": b"\x80\x04\x8f(]\x90.",
    "odd items": b"}(NNNu.",
    "append to a dict": b"}Na.",
    "append to a tuple": b")Na.",
    "append to a bytearray": b"\x80\x05\x96\x01\0\0\0\0\0\0\0aK\x01a.",
    "extend a string": text(b"a") + b"(K\x01e.",
    "set an item of a list": b"]K\x00Ns.",
    "add to a list": b"\x80\x04](N\x90.",
    "add to nothing": b"\x80\x04(N\x90.",
    "items across a mark": b"](N\x85(Nee.",
    "tuple of nothing": b"\x87.",
    "tuple across a mark": b"NN(\x86.",
    "close what was not opened": b"Nt.",
    "random": bytes(range(256)),
    "a frame of our own clients": b"\x93\x01\x90",
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
}  # fmt: skip


def test_the_corpus_is_large():
    assert len(HOSTILE) >= 60
    assert len(set(HOSTILE.values())) == len(HOSTILE)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_request_is_refused_at_once_without_memory_or_effect(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = HOSTILE[name]
    tracemalloc.start()
    start = time.perf_counter()
    try:
        with pytest.raises(BadRequest):
            loads_plain(message)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - start < 10  # tracing memory slows it down some ten times
    assert peak < 1_000_000 + 200 * len(message)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_item_inside_a_good_request_is_refused(name, tmp_path, monkeypatch):
    """The same bytes where a put has its item: behind an ident, a method and an open mark."""
    monkeypatch.chdir(tmp_path)
    body = HOSTILE[name].removeprefix(b"\x80\x04").removeprefix(b"\x80\x02").removesuffix(b".")
    with pytest.raises(BadRequest):
        loads_plain(b"\x80\x04(\x8c\x01i\x94\x8c\x03put\x94" + body + b"\x85}t..")
    assert list(tmp_path.iterdir()) == []


def test_the_canary_would_sing():
    """The same corpus, given to pickle.loads, does leave a file: the corpus is able to do harm."""
    with pytest.raises(FileNotFoundError):
        os.stat(CANARY)  # noqa: PTH116
    pickle.loads(HOSTILE["path method"])
    pickle.loads(HOSTILE["os.open as an argument"])
    Path(CANARY).unlink()


@pytest.mark.parametrize(
    "unit", [b"]", b"}", b"\x8f", b"N", b")", b"(\x91", b"]Na", b"}NNs", b"N\x85", b"(l"]
)
def test_the_most_costly_requests_take_bounded_memory(unit):
    message = b"\x80\x04(" + unit * (2**15 // len(unit)) + b"t."
    tracemalloc.start()
    try:
        with pytest.raises(BadRequest, match=r"parts|grows too large"):
            loads_plain(message, max_operations=25_000, max_expanded_bytes=2**22)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2**20 + 300 * 25_000


@pytest.mark.parametrize("wrap", [lambda value: (value,), lambda value: [value], lambda value: {"a": value}])
def test_nesting_up_to_the_limit_is_read(wrap):
    message = nested(NESTING_MAX, wrap)
    assert repr(loads_plain(message)) == repr(pickle.loads(message))


def test_sharing_up_to_the_limit_is_read():
    message = laughs(5, list)
    assert loads_plain(message) == pickle.loads(message)


def test_many_references_to_small_things_are_no_bomb():
    """Each record repeats its keys by the memo, as every real list of mappings does."""
    records = [{"identifier": i, "description": "the same words"} for i in range(20_000)]
    assert loads_plain(pickle.dumps([records, list(records)])) == [records, records]


def test_ordinary_integers_are_no_forgeries():
    value = {i: {i, i + 1} for i in range(5000)}
    assert loads_plain(pickle.dumps(value)) == value


@pytest.mark.parametrize("limit", [1, 10, 100])
def test_the_number_of_parts_can_be_limited_further(limit):
    message = pickle.dumps(list(range(1000)))
    with pytest.raises(BadRequest, match=rf"more than {limit} parts"):
        loads_plain(message, max_operations=limit)


def test_a_request_of_very_many_parts_is_refused():
    with pytest.raises(BadRequest, match="more than 500000 parts; send less at once"):
        loads_plain(b"(" + b"N" * 600_000 + b"t.")


def test_the_growth_by_sharing_can_be_limited_further():
    message = pickle.dumps([["x" * 1000] * 2] * 3)
    assert loads_plain(message)
    with pytest.raises(BadRequest, match="grows too large"):
        loads_plain(message, max_expanded_bytes=2000)
