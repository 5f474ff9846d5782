"""The types that a task's annotations ask for, and their values from the data that MessagePack gives.

A worker converts arguments to it. A submitter that has the function at hand refuses a value that could not
be given so, before anything is sent.
"""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import PurePath
from typing import Any

import msgspec

from svc.errors import CodecError
from svc.extensions import as_data, travelled
from svc.large import File, may_be_large

#: Functions whose demands are remembered.
_KNOWN_MAX = 256
_PLAIN = (bool, int, float, bytes, str)


def from_data(wanted: Any, value: object) -> object:
    """Return *value* as *wanted*, a type that msgspec does not know; its `dec_hook`.

    Raises:
        ValueError: it cannot be made of it.
    """
    kind = typing.get_origin(wanted) or wanted
    if isinstance(value, kind):
        return value
    said = f"Expected `{getattr(kind, '__name__', kind)}`, got `{type(value).__name__}`"
    if issubclass(kind, PurePath):
        if isinstance(value, str):
            return kind(value)
        raise ValueError(said)
    if issubclass(kind, File):
        said += "; pass svc.File(path) in Python; from the command line a task gets bytes"
        raise ValueError(said)  # noqa: TRY004 - msgspec names the place of it
    numpy = sys.modules.get("numpy")
    if numpy is not None and issubclass(kind, numpy.generic) and isinstance(value, _PLAIN):
        return kind(value)
    raise ValueError(f"{said}; plain data has none, so submit with the pickle codec")


def signature_of(function: Callable[..., Any]) -> inspect.Signature:
    """Return the signature of *function*; of a builtin that has none, one that takes anything."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        anything = [
            inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
            inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
        ]
        return inspect.Signature(anything)


def annotation_of(function: Callable[..., Any], parameter: inspect.Parameter) -> Any:
    """Return the type that arguments for *parameter* are converted to; Any if there is none to use."""
    if parameter.annotation is parameter.empty:
        return Any
    inner = inspect.unwrap(function)
    holder = types.SimpleNamespace(__annotations__={"it": parameter.annotation})
    try:
        hints = typing.get_type_hints(holder, getattr(inner, "__globals__", {}), include_extras=True)
        return hints["it"] if hints["it"] is not object and _usable(hints["it"]) else Any
    except Exception:  # noqa: BLE001 - a name that only type checkers can see, or anything else that evaluates badly
        return Any


def _usable(wanted: Any) -> bool:
    """Tell whether msgspec can convert to *wanted*.

    Raises:
        TypeError: it cannot.
    """
    try:
        msgspec.convert(object(), wanted)
    except msgspec.ValidationError:
        return True
    return True


class Demands:
    """The parameters of a function that ask for a type which plain data may not be able to give."""

    def __init__(self, function: Callable[..., Any]) -> None:
        """Read the signature of *function*."""
        self._signature = signature_of(function)
        wanted = {each.name: annotation_of(function, each) for each in self._signature.parameters.values()}
        self._wanted = {
            name: each for name, each in wanted.items() if _is_foreign(msgspec.inspect.type_info(each), set())
        }

    def __bool__(self) -> bool:
        """Tell whether there are any."""
        return bool(self._wanted)

    def check(self, args: Sequence[object], kwargs: Mapping[str, object]) -> None:
        """Refuse a value that the function could not be given.

        Raises:
            CodecError: there is one; the message names the parameter.
        """
        try:
            given = self._signature.bind_partial(*args, **kwargs).arguments
        except TypeError:
            return  # the worker says in which way they do not fit
        for name in self._wanted.keys() & given.keys():
            for value in _values(self._signature.parameters[name], given[name]):
                try:
                    _check(value, self._wanted[name])
                except (msgspec.ValidationError, TypeError, ValueError, OverflowError) as error:
                    said = str(error)
                    raise CodecError(f"argument {name}: {said[:1].lower()}{said[1:]}") from None


@lru_cache(maxsize=_KNOWN_MAX)
def demands_of(function: Callable[..., Any]) -> Demands | None:
    """Return the parameters of *function* that ask for more than plain data; None if there are none."""
    return Demands(function) or None


def _values(parameter: inspect.Parameter, given: Any) -> Iterator[object]:
    if parameter.kind is parameter.VAR_POSITIONAL:
        yield from given
    elif parameter.kind is parameter.VAR_KEYWORD:
        yield from given.values()
    else:
        yield given


def _check(value: object, wanted: Any) -> None:
    """See whether *value* can be given as *wanted* once it has travelled, or in its plain form."""
    try:
        arrived = value if isinstance(value, File) or may_be_large(value) else travelled(value)
        msgspec.convert(arrived, wanted, dec_hook=from_data)
    except (msgspec.ValidationError, ValueError):
        msgspec.convert(as_plain(value), wanted, dec_hook=from_data)


def as_plain(value: object) -> object:
    """Return *value* as plain data: lists and text in place of other objects.

    Raises:
        TypeError, ValueError, OverflowError: it is not data.
    """
    return msgspec.msgpack.decode(msgspec.msgpack.encode(value, enc_hook=as_data))


def _is_foreign(info: Any, seen: set[int]) -> bool:
    """Tell whether msgspec's description of a type has one in it that it does not know."""
    if isinstance(info, msgspec.inspect.CustomType):
        return True
    if isinstance(info, tuple):
        return any(_is_foreign(each, seen) for each in info)
    if not isinstance(info, msgspec.inspect.Type | msgspec.inspect.Field) or id(info) in seen:
        return False
    seen.add(id(info))  # a type may contain itself
    return any(_is_foreign(getattr(info, name), seen) for name in info.__struct_fields__)
