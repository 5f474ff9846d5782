"""Test pickles for a reader: good ones of every opcode and protocol, and malicious ones.

A reader of plain data must refuse all of `HOSTILE`. A file named CANARY would show that code was run.
"""

from __future__ import annotations

import collections
import datetime as dt
import functools
import os
import pickle
import pickletools
import struct
import sys
from collections.abc import Callable
from pathlib import Path

from svc.server.pickle_machine import OPERATIONS_MAX
from svc.server.pickle_stack import FORGEABLE_KEYS_MAX, NESTING_MAX

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

#: One message for each opcode that is read, and its value.
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

CANARY = f"svc-canary-{os.getpid()}"


class Call:
    """An object whose pickle is a call."""

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

_REQUEST = REQUESTS[3]
_REFUSED = sorted(set(OPCODES) - ALLOWED)
_BEFORE = (b"", b"\x80\x04", b"\x80\x04(N]", b"N" * 100, b"]q\x00Nah\x00")


def _named(*beginnings: str) -> dict[str, bytes]:
    return {name: message for name, message in HOSTILE.items() if name.startswith(beginnings)}


def _opcodes() -> dict[str, bytes]:
    rest = b"\x01\0\0\0\n" * 4 + b"."
    return {
        f"{name} behind {before[:8]!r}": before + OPCODES[name] + rest
        for name in _REFUSED
        for before in _BEFORE
    }


def _protocols() -> dict[str, bytes]:
    calls = {
        "a call": Call(os.system, touch().decode()),
        "a class": Anything,
        "a method": Path.touch,
        "a call as an item": ("i", "put", (Call(os.open, CANARY, os.O_CREAT),), {}),
    }
    return {
        f"{name}, protocol {protocol}": pickle.dumps(value, protocol)
        for name, value in calls.items()
        for protocol in PROTOCOLS
    } | {f"protocol {number}": bytes([0x80, number]) + b"N." for number in (6, 7, 127, 128, 255)}


def _dotted() -> dict[str, bytes]:
    names = (
        "os.path.os.system",
        "os.environ.clear",
        "Path.touch",
        "__class__.__mro__",
        ".",
        "..",
        "a." * 100,
    )
    pushed = {name: b"\x8c" + bytes([len(name)]) + name.encode() for name in names}
    return _named("stack global") | {
        f"dotted: {name[:20]}, {way}": message
        for name, push in pushed.items()
        for way, message in (
            ("by the stack", b"\x80\x04\x8c\x02os" + push + b"\x93."),
            ("by a line", b"cos\n" + name.encode() + b"\n."),
            ("by an instance", b"(ios\n" + name.encode() + b"\n."),
        )
    }


def _lengths() -> dict[str, bytes]:
    heads = {"B": 4, "X": 4, "\x8b": 4, "\x8d": 8, "\x8e": 8, "\x95": 8, "\x96": 8}
    return _named("count", "negative count", "bytearray beyond", "frame", "integer of") | {
        f"{name!r} counts {size}": name.encode("latin-1") + size.to_bytes(width, "little") + b"abc."
        for name, width in heads.items()
        for size in (1 << 20, 1 << 30, (1 << 31) - 1, (1 << 8 * width) - 1)
    }


def _memo() -> dict[str, bytes]:
    return _named("memo", "billion", "laughs") | {
        f"memo number {index} {way}": message
        for index in (1, 255, 1 << 16, (1 << 31) - 1)
        for way, message in (
            ("by 4 bytes", b"Nr" + index.to_bytes(4, "little") + b"."),
            ("as text", b"Np%d\n." % index),
            ("asked for", b"j" + index.to_bytes(4, "little") + b"."),
        )
    }


def _nested() -> dict[str, bytes]:
    wraps: dict[str, Callable[[object], object]] = {
        "tuples": lambda value: (value,), "lists": lambda value: [value], "dicts": lambda value: {"a": value},
    }  # fmt: skip
    return _named("deep", "tuples too deep", "frozensets too deep", "a hundred thousand") | {
        f"{depth} {name}": nested(depth, wrap) for name, wrap in wraps.items() for depth in (65, 128, 600)
    }


def _truncated() -> dict[str, bytes]:
    whole = {protocol: pickle.dumps(_REQUEST, protocol) for protocol in PROTOCOLS}
    return {
        f"the first {size} bytes in protocol {protocol}": message[:size]
        for protocol, message in whole.items()
        for size in range(0, len(message), 4)
    }


def _oversized() -> dict[str, bytes]:
    return _named("integer of a", "another one", "float of a") | {
        "too many parts": b"(" + b"N" * OPERATIONS_MAX + b"t.",
        "too many parts of a list": b"](" + b"K\x01" * OPERATIONS_MAX + b"e.",
        "too many keys that collide": pickle.dumps(dict.fromkeys(COLLIDING * 2)),
        "too many tuples as members": pickle.dumps({(i,) for i in range(2 * FORGEABLE_KEYS_MAX)}),
    }


#: Hostile messages by kind; a reader must refuse all of them.
KINDS: dict[str, Callable[[], dict[str, bytes]]] = {
    "each opcode": _opcodes,
    "each protocol": _protocols,
    "memo bombs": _memo,
    "length bombs": _lengths,
    "deep nesting": _nested,
    "dotted names": _dotted,
    "truncated": _truncated,
    "oversized": _oversized,
    "others": lambda: HOSTILE,
}
