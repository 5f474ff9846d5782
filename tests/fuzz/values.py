"""Values for the fields of commands: usual ones, those of the current state, and odd ones.

The types come from the declarations. A field of an unknown type is an error, so that the author of such a
type adds it here; a field of a new name gets values by its type alone.
"""

from __future__ import annotations

import math
import pickle
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

#: Integers at the limits of msgpack, SQLite, a C long and a double.
ODD_INTEGERS = (
    -1, -2, 255, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 53) - 1, 1 << 53, (1 << 53) + 1, (1 << 63) - 1,
    1 << 63, (1 << 64) - 1, 1 << 64, -(1 << 31), -(1 << 63), -(1 << 63) - 1, 1 << 200,
)  # fmt: skip
ODD_FLOATS = (math.nan, math.inf, -math.inf, -1.0, -0.0, 5e-324, 1e-9, 1.7e308, -1.7e308, 1e18, 4e9)
ODD_TEXTS = (
    "", " ", "-", "#", "#item", "#pill", "#results", "#x", "put1", "put2", "put1-0", "put01-0", "svc:call",
    "\ud800", "a\ud800b", "\x00", "\n", "a\nb", "\x1b[31m", "\u202e", "\x9b", "é", "𝟘", "o-٣", "ﬀ", "NaN",
    "x" * 199, "x" * 200, "x" * 201, "x" * 70_000, "a-" * 50, "-1", "a-00", "a--1", "0", "../x", "a b",
)  # fmt: skip
ODD_BYTES = (
    b"", b"\xc1", b"\xdf\xff\xff\xff\xff", b"\xdd\x00\x0f\xff\xff" + b"\x80" * 64, b"\x92" * 900, b"N.",
    pickle.dumps(print), b"\x80\x03cos\nsystem\nX\x02\x00\x00\x00id\x85R.", pickle.dumps([None] * 1000),
    # Extensions: points in time, numbers, tuples and sets, pickles, references, and one of no known type.
    b"\xd6\xff\0\0\0\0", b"\xc7\x0c\xff" + b"\xff" * 12, b"\x92\x91\xd7\xff" + b"\0" * 8 + b"\x80",
    b"\x92\x91\xc7\x07\x01\x91\xd6\xff\0\0\0\0\x80", b"\x92\x91\xc7\x02\x02\x91\x01\x80", b"\xd4\x05\x01",
    b"\xd4\x0a1", b"\xd4\x50\0", b"\xd4\x0c\0", b"\xd4\x7f\0",
    b"x" * 5000, b"x" * 70_000,
)  # fmt: skip
#: The share of lists that repeat one element, and the number of repetitions.
_SWARM = 0.02
_SWARM_SIZES = (40, 300, 2200)
_SWARM_BYTES_MAX = 4 << 20
T = TypeVar("T")

#: The possible values of a field, by name: they fit each other and the current state.
Usual = Mapping[str, Sequence[Any]]
#: Names of lists, and the name for one of their elements.
_SINGULAR = {
    "ids": "id", "queues": "queue", "tasks": "task", "bodies": "body", "results": "result",
}  # fmt: skip
_SMALL = (0, 1, 2, 3, 5, 10)
_SECONDS = (0.0, 0.0, 0.1, 0.5, 2.0, 10.0)
_WORDS = ("a", "b", "c-1", "default")
#: Arguments and results; the last ones have a tuple and points in time in them.
_BODIES = (
    b"\x92\x90\x80", b"\x92\x91\x01\x80", b"\x01", b"r", b"x" * 200, b"\x92\x91\xd5\x01\x91\x01\x80",
    b"\x92\x91\xd6\xff\0\0\0\0\x80", b"\xd6\xff\0\0\0\0",
)  # fmt: skip


class Values:
    """Makes values of a type; *oddity* is the share of odd fields."""

    def __init__(self, rng: random.Random) -> None:
        """Choose with the random numbers of *rng*."""
        self._rng = rng
        self.oddity = 0.0
        #: The number of jobs in the command: lists that belong together have this length.
        self.size = 1
        self._by_type: dict[type[inspect.Type], Callable[[Any, str, Usual], Any]] = {
            inspect.IntType: self._integer,
            inspect.FloatType: self._float,
            inspect.StrType: self._text,
            inspect.BytesType: self._bytes,
            inspect.BoolType: self._bool,
            inspect.NoneType: lambda kind, name, usual: None,
            inspect.EnumType: self._member,
            inspect.UnionType: self._one_of,
            inspect.ListType: self._list,
            inspect.StructType: self.struct,
        }

    def of(self, kind: inspect.Type, name: str, usual: Usual) -> Any:
        """Return a value for a field.

        Raises:
            TypeError: the fuzzer does not know the type.
        """
        if isinstance(kind, inspect.Metadata):
            return self.of(kind.type, name, usual)
        make = self._by_type.get(type(kind))
        if make is None:
            raise TypeError(f"teach the fuzzer {type(kind).__name__}, for {name!r}")
        return make(kind, name, usual)

    def struct(self, kind: inspect.StructType, name: str, usual: Usual) -> Any:
        """Return a struct; fields with a default mostly keep it, unless a usual value is known."""
        values = {}
        for part in kind.fields:
            if part.required or part.name in usual or self._rng.random() < 0.3:
                values[part.name] = self.of(part.type, part.name, usual)
        # Not with the constructor's type: msgspec checks types only when it decodes.
        return kind.cls(**values)

    def odd(self) -> bool:
        """Return whether the next value is odd."""
        return self._rng.random() < self.oddity

    def _known(self, name: str, usual: Usual) -> Any:
        known = usual.get(name)
        return self._rng.choice(known) if known else None

    def _integer(self, kind: inspect.IntType, name: str, usual: Usual) -> int:
        if self.odd():
            edges = [bound for bound in (kind.ge, kind.le, kind.gt, kind.lt) if bound is not None]
            near = self._known(name, usual)
            around = [
                edge + step for edge in (*edges, near if isinstance(near, int) else 0) for step in (-1, 0, 1)
            ]
            return int(self._rng.choice((*ODD_INTEGERS, *around)))
        known = self._known(name, usual)
        return int(known) if isinstance(known, int) else self._rng.choice(_SMALL)

    def _float(self, kind: inspect.FloatType, name: str, usual: Usual) -> float:
        if self.odd():
            return self._rng.choice(ODD_FLOATS)
        known = self._known(name, usual)
        return float(known) if isinstance(known, int | float) else self._rng.choice(_SECONDS)

    def _text(self, kind: inspect.StrType, name: str, usual: Usual) -> str:
        known = self._known(name, usual)
        text = known if isinstance(known, str) else self._rng.choice(_WORDS)
        if not self.odd():
            return text
        if self._rng.random() < 0.5:
            return self._bent(text)
        return self._rng.choice(ODD_TEXTS)

    def _bent(self, text: str) -> str:
        """Return a text that is nearly the same as *text*: another spelling of an id, for example."""
        head, dash, number = text.rpartition("-")
        spellings = [f"{head}{dash}0{number}", f"{head}{dash}00{number}", f"{head}{dash}+{number}"]
        return self._rng.choice(
            [*spellings, f" {text}", f"{text} ", text.upper(), f"{text}\n", text + "\u0660"]
        )

    def _bytes(self, kind: inspect.BytesType, name: str, usual: Usual) -> bytes:
        if self.odd():
            return self._rng.choice(ODD_BYTES)
        known = self._known(name, usual)
        return known if isinstance(known, bytes) else self._rng.choice(_BODIES)

    def _bool(self, kind: inspect.BoolType, name: str, usual: Usual) -> bool:
        return self._rng.random() < 0.3

    def _member(self, kind: inspect.EnumType, name: str, usual: Usual) -> Any:
        return self._rng.choice(list(kind.cls))

    def _one_of(self, kind: inspect.UnionType, name: str, usual: Usual) -> Any:
        return self.of(self._rng.choice(kind.types), name, usual)

    def _list(self, kind: inspect.ListType, name: str, usual: Usual) -> list[Any]:
        inner = _SINGULAR.get(name, name)
        size = max(0, self.size + self._rng.choice((-1, 1))) if self.odd() else self.size
        found = [self.of(kind.item_type, inner, usual) for _ in range(size)]
        if found and self.odd():
            found.append(self._rng.choice(found))
        if found and self._rng.random() < _SWARM * self.oddity:
            found = swarm(found, self._rng.choice(_SWARM_SIZES))
        return found

    def plain(self, depth: int = 0) -> Any:
        """Return any plain data that a stock client may put."""
        choice = self._rng.randrange(9 if depth < 3 else 6)
        scalars: list[Callable[[], Any]] = [
            lambda: None,
            lambda: self._rng.choice((*_SMALL, *ODD_INTEGERS)),
            lambda: self._rng.choice((*_SECONDS, *ODD_FLOATS)),
            lambda: self._rng.choice((*_WORDS, *ODD_TEXTS)),
            lambda: self._rng.choice((*_BODIES, *ODD_BYTES)),
            lambda: self._rng.random() < 0.5,
        ]
        if choice < 6:
            return scalars[choice]()
        parts = [self.plain(depth + 1) for _ in range(self._rng.randrange(3))]
        if choice == 6:
            return tuple(parts)
        if choice == 7:
            return parts
        return {self._rng.choice(_WORDS): part for part in parts}


def swarm(values: Sequence[T], times: int) -> list[T]:
    """Return *values* repeated so many times, or fewer if they would not fit into a message."""
    size = encoded_bytes(values)
    fitting = _SWARM_BYTES_MAX // size if size else 1
    return list(values) * max(1, min(times, fitting))


def encoded_bytes(value: object) -> int | None:
    """Return the bytes of *value* in a frame, or None if no client could put it into one."""
    try:
        return len(msgspec.msgpack.encode(value))
    except (OverflowError, UnicodeEncodeError, ValueError):
        return None
