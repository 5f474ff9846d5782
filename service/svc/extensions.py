"""The extension types by which MessagePack carries values of Python that it does not have, unchanged.

A body with one of them has the codec `typed`, so only consumers that know these types get it. The content of
an extension is an array for `tuple`, `set` and `frozenset`, bytes for `bytearray` and large numbers, and
otherwise text. Codes and contents never change: journals have them.
"""

from __future__ import annotations

import dataclasses
import enum
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from pathlib import PurePath
from typing import Any, Final
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec
from msgspec.msgpack import Ext

from svc.errors import CodecError
from svc.large import REFERENCE, File, LargeReference

#: Types of values that MessagePack carries as they are, and that hold no others.
SCALARS: Final = frozenset((int, str, float, bool, bytes, type(None)))
#: The codes of the extension types.
TUPLE, SET, FROZENSET, BYTEARRAY, INTEGER, DATETIME, DATE, TIME, TIMEDELTA, DECIMAL, IDENTIFIER = range(1, 12)
#: In no body: the manager gives this type to MessagePack's points in time before it reads them by `data_of`.
MOMENT: Final = 127
#: Extension types with an array in them.
ARRAYS: Final = frozenset((TUPLE, SET, FROZENSET))
#: Kinds of numpy's scalars (`dtype.kind`) that are data: truth values, whole and other numbers, bytes, text.
_NUMPY_KINDS = frozenset("biufSU")
#: Levels of containers into which an error message looks for the value that is no data.
_LEVELS_SHOWN = 16
#: Values for which a loop is as fast as a pass in C.
_FEW = 8
#: Collections in a value that are looked at before it is encoded.
_COLLECTIONS_MAX = 100_000
#: Bytes of a whole number: Python makes text of up to 4,300 digits, and these are at most 4,215.
INTEGER_BYTES_MAX: Final = 1750
_INTEGER_MIN, _INTEGER_MAX = -(2**63), 2**64 - 1

_Arguments = tuple[Sequence[object], Mapping[str, object]]


class _Extension:
    """An extension that may be the key of a map, unlike `Ext`."""

    __slots__ = ("value",)

    def __init__(self, code: int, content: bytes) -> None:
        """Hold the code of the type and the content."""
        self.value = Ext(code, content)


def as_data(value: object) -> object:
    """Return *value* as data if it is a path or a scalar of numpy; msgspec's `enc_hook`.

    Raises:
        TypeError: it is anything else.
    """
    if isinstance(value, _Extension):
        return value.value
    if isinstance(value, PurePath):
        return str(value)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic) and value.dtype.kind in _NUMPY_KINDS:
        plain = value.item()
        if type(plain) in SCALARS:
            return plain
    if isinstance(value, File):
        raise TypeError("a svc.File is an argument itself, or the result itself")
    raise TypeError(f"Encoding objects of type {type(value).__name__} is unsupported")


_encoder = msgspec.msgpack.Encoder(enc_hook=as_data)


# --- writing ------------------------------------------------------------------------------------------------


def are_plain(values: Collection[object]) -> bool:
    """Return whether *values* are plain data through and through, so that MessagePack returns equal ones.

    Each job with lists or maps among its arguments waits for this, so it is one loop without calls.
    """
    todo = [values]
    for collection in todo:
        # For many values a pass in C is faster, and mostly enough.
        if len(collection) > _FEW and SCALARS.issuperset(map(type, collection)):
            continue
        for value in collection:
            kind = type(value)
            if kind in SCALARS:
                continue
            if kind is list:
                todo.append(value)  # type: ignore[arg-type]  # it is a list
            elif kind is dict:
                todo += (value.keys(), value.values())  # type: ignore[attr-defined]  # it is a dict
            else:
                return False
        if len(todo) > _COLLECTIONS_MAX:
            return False  # it may contain itself: the encoder will tell
    return True


def encode(value: object, *, exact: bool = False) -> tuple[bytes, bool]:
    """Return *value* as MessagePack, and whether it has extensions.

    Raises:
        TypeError, ValueError, OverflowError, RecursionError: it is not data, or with *exact* it would not
            come back unchanged.
    """
    writer = _Writer(exact)
    return _encoder.encode(writer.written(value)), writer.extended


class _Writer:
    """Replaces the values of Python that MessagePack does not have by extensions.

    Attributes:
        extended: whether there was one.
    """

    def __init__(self, exact: bool) -> None:
        self.extended = False
        self._exact = exact

    def written(self, value: Any) -> object:
        """Return *value* for MessagePack."""
        kind = type(value)
        if kind is int and not _INTEGER_MIN <= value <= _INTEGER_MAX:
            return self._extension(INTEGER, _number_bytes(value))
        if kind in SCALARS:
            return value
        if self._exact and kind not in _EXACT:
            raise TypeError(f"objects of type {kind.__name__} are converted")
        if isinstance(value, list):
            return [self.written(each) for each in value]
        if isinstance(value, dict):
            return {self.written(key): self.written(each) for key, each in value.items()}
        if isinstance(value, enum.Enum):
            return self.written(value.value)
        if isinstance(value, tuple | set | frozenset):
            return self._array(value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return {name: self.written(each) for name, each in _fields(value)}
        return self._single(value)

    def _array(self, value: Any) -> object:
        if isinstance(value, tuple):
            return self._extension(TUPLE, _encoder.encode([self.written(each) for each in value]))
        # In this order equal sets have equal bytes, by which a job with a key is recognized.
        parts = sorted(_encoder.encode(self.written(each)) for each in value)
        content = _encoder.encode([msgspec.Raw(part) for part in parts])
        return self._extension(SET if isinstance(value, set) else FROZENSET, content)

    def _single(self, value: Any) -> object:
        if isinstance(value, datetime):
            # MessagePack has points in time, which are read as times in UTC.
            return value if value.tzinfo is UTC else self._extension(DATETIME, _moment(value).encode())
        for kind, code, content in _CONTENTS:
            if isinstance(value, kind):
                return self._extension(code, content(value))
        if isinstance(value, msgspec.Struct) or hasattr(type(value), "__attrs_attrs__"):
            return self.written(msgspec.to_builtins(value, enc_hook=as_data, builtin_types=_KNOWN))
        return bytes(value) if isinstance(value, memoryview) else as_data(value)

    def _extension(self, code: int, content: bytes) -> _Extension:
        self.extended = True
        return _Extension(code, content)


def _fields(value: Any) -> Iterator[tuple[str, object]]:
    for field in dataclasses.fields(value):
        with suppress(AttributeError):  # a field that was never set
            yield field.name, getattr(value, field.name)


def _moment(value: datetime) -> str:
    """Return a time with its offset; a zone of the database with its name behind it, as in RFC 9557."""
    zone = value.tzinfo.key if isinstance(value.tzinfo, ZoneInfo) else None
    return f"{value.isoformat()}[{zone}]" if zone else value.isoformat() + "~" * value.fold


def _duration(value: timedelta) -> str:
    return f"{value.days} {value.seconds} {value.microseconds}"


def _number_bytes(value: int) -> bytes:
    size = value.bit_length() // 8 + 1
    if size > INTEGER_BYTES_MAX:
        raise OverflowError(f"a whole number takes {size} bytes, and {INTEGER_BYTES_MAX} is the limit")
    return value.to_bytes(size, "big", signed=True)


#: Types, their codes and their contents; a type comes before those that it derives from.
_CONTENTS: tuple[tuple[type, int, Callable[[Any], bytes]], ...] = (
    (date, DATE, lambda value: value.isoformat().encode()),
    (time, TIME, lambda value: (value.isoformat() + "~" * value.fold).encode()),
    (timedelta, TIMEDELTA, lambda value: _duration(value).encode()),
    (Decimal, DECIMAL, lambda value: str(value).encode()),
    (UUID, IDENTIFIER, lambda value: str(value).encode()),
    (bytearray, BYTEARRAY, bytes),
    (LargeReference, REFERENCE, LargeReference.content),
)
_KNOWN = (bytes, bytearray, datetime, date, time, timedelta, UUID, Decimal)
_EXACT = frozenset((list, dict, tuple, set, frozenset, bytearray, date, time, timedelta, UUID, Decimal))


# --- reading ------------------------------------------------------------------------------------------------


def value_of(code: int, content: memoryview) -> Any:
    """Return the value in an extension; msgspec's `ext_hook`.

    Raises:
        CodecError: there is no such extension type.
        ValueError: the content is none of that type.
    """
    reader = _READERS.get(code)
    if reader is None:
        raise CodecError(
            f"there is an extension of the unknown type {code}; a newer release may have sent it"
        )
    return reader(content)


def data_of(code: int, content: memoryview) -> Any:
    """Return the value in an extension as data for stock clients: a list or text in place of other objects.

    Raises:
        CodecError: there is no such extension type.
        ValueError: the content is none of that type.
    """
    if code == MOMENT:
        # MessagePack's own type for a point in time is -1, of any of three lengths.
        return _time_decoder.decode(bytes((0xC7, len(content), 0xFF)) + content).isoformat()
    if code not in _READERS:
        raise CodecError(f"there is an extension of the unknown type {code}")
    if code in ARRAYS:
        return (tuple if code == TUPLE else list)(_data_decoder.decode(content))
    if code in {BYTEARRAY, INTEGER}:
        return bytes(content) if code == BYTEARRAY else _read_integer(content)
    return str(content, "utf-8").rstrip("~")


def travelled(value: object) -> object:
    """Return *value* as it arrives.

    Raises:
        TypeError, ValueError, OverflowError, RecursionError: it is not data.
    """
    return _decoder.decode(encode(value)[0])


_decoder = msgspec.msgpack.Decoder(ext_hook=value_of)
_time_decoder = msgspec.msgpack.Decoder(datetime)
_array_decoder = msgspec.msgpack.Decoder(list[Any], ext_hook=value_of)
_data_decoder = msgspec.msgpack.Decoder(list[Any], ext_hook=data_of)


def _read_datetime(content: memoryview) -> datetime:
    text, _, zone = str(content, "utf-8").partition("[")
    value = datetime.fromisoformat(text.rstrip("~"))
    if not zone:
        return value.replace(fold=1) if text.endswith("~") else value
    try:
        known: tzinfo = ZoneInfo(zone.removesuffix("]"))
    except (KeyError, OSError, ValueError) as error:
        raise CodecError(f"the time {text}[{zone} is in a zone that this system does not know") from error
    # The offset tells which of two equal times of a day it is, when clocks are set back.
    first = value.replace(tzinfo=known)
    return first if first.utcoffset() == value.utcoffset() else first.replace(fold=1)


def _read_time(content: memoryview) -> time:
    text = str(content, "utf-8")
    return time.fromisoformat(text.rstrip("~")).replace(fold=int(text.endswith("~")))


def _read_duration(content: memoryview) -> timedelta:
    days, seconds, microseconds = map(int, str(content, "utf-8").split())
    return timedelta(days, seconds, microseconds)


def _read_integer(content: memoryview) -> int:
    if len(content) > INTEGER_BYTES_MAX:
        raise ValueError("a whole number is too large")
    return int.from_bytes(content, "big", signed=True)


_READERS: dict[int, Callable[[memoryview], Any]] = {
    TUPLE: lambda content: tuple(_array_decoder.decode(content)),
    SET: lambda content: set(_array_decoder.decode(content)),
    FROZENSET: lambda content: frozenset(_array_decoder.decode(content)),
    BYTEARRAY: bytearray,
    INTEGER: _read_integer,
    DATETIME: _read_datetime,
    DATE: lambda content: date.fromisoformat(str(content, "utf-8")),
    TIME: _read_time,
    TIMEDELTA: _read_duration,
    DECIMAL: lambda content: Decimal(str(content, "utf-8")),
    IDENTIFIER: lambda content: UUID(str(content, "utf-8")),
}


# --- errors -------------------------------------------------------------------------------------------------


def place_of(arguments: _Arguments, refused: Callable[[Any], bool], names: Sequence[str]) -> str:
    """Return the place of the first value in *arguments* that is *refused*, such as `argument 2["size"][0]`.

    It is "the arguments" if each is taken by itself. *names* has one for each positional argument.
    """
    args, kwargs = arguments
    for name, value in [*zip(names, args, strict=True), *kwargs.items()]:
        if refused(value):
            return f"argument {name}" + _path(value, refused)
    return "the arguments"


def _path(value: object, refused: Callable[[Any], bool]) -> str:
    path = ""
    for _ in range(_LEVELS_SHOWN):
        inner = next(((step, each) for step, each in _items(value) if refused(each)), None)
        if inner is None:
            break
        step, value = inner
        path += f"[{step!r:.40}]"
    return path


def _items(value: object) -> Iterator[tuple[object, object]]:
    if isinstance(value, list | tuple):
        yield from enumerate(value)
    elif isinstance(value, dict):
        yield from value.items()
