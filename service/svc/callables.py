"""Wrappers for callables, which keep the exact result of a call elsewhere; and the names of callables.

A result that is sent as MessagePack comes back as plain data: a tuple as a list, an enum as its value. With
these wrappers the worker sends such a result as a pickle, which unpickles to the value that the function
returned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import CoroutineType
from typing import Any, TypeVar

T = TypeVar("T")

#: Types whose values MessagePack gives back unchanged.
_EXACT = (str, int, float, bool, bytes, type(None))


class Returned:
    """A result that no codec takes for plain data; its pickle unpickles to the value inside."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        """Hold *value*."""
        self.value = value

    def __reduce__(self) -> tuple[Callable[[T], T], tuple[object]]:
        """Unpickle to the value itself."""
        return _same, (self.value,)


class Exactly:
    """A callable whose result comes back unchanged."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        """Wrap *function*."""
        self.function = function

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        """Call the function; a coroutine is left for the worker to run."""
        value = self.function(*args, **kwargs)
        return value if type(value) in _EXACT or isinstance(value, CoroutineType) else Returned(value)


class Each:
    """A callable for several calls of one function; `map` makes one for each chunk of calls."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        """Wrap *function*."""
        self.function = function

    def __call__(self, *calls: Sequence[Any]) -> list[Any]:
        """Call the function with each tuple of arguments; return the list of results."""
        return [self.function(*args) for args in calls]


def name_of(call: Callable[..., Any]) -> str:
    """Return `module:qualname` of the function, method or class at the core of *call*."""
    inner: Any = call
    while isinstance(inner, _WRAPPERS):
        inner = inner.func if isinstance(inner, partial) else inner.function
    if not isinstance(getattr(inner, "__qualname__", None), str):
        inner = type(inner)
    module = getattr(inner, "__module__", None) or type(getattr(inner, "__self__", inner)).__module__
    return f"{module}:{inner.__qualname__}"


def _same(value: T) -> T:
    return value


_WRAPPERS = (Exactly, Each, partial)
