"""Checks that the arguments of a job fit its task, and converts them to the annotated types."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from svc.annotations import annotation_of, as_plain, from_data, signature_of
from svc.errors import ArgumentError

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
#: Types whose instances need no conversion; an instance of a subclass does.
_EXACT = (int, str, bytes, bool, float, type(None))

#: Positional and keyword arguments.
Arguments = tuple[Sequence[Any], dict[str, Any]]


class Signature:
    """The parameters of one function, ready to check and convert arguments.

    A parameter without an annotation, or with one that msgspec cannot handle, takes any value.

    Attributes:
        fewest: the number of positional arguments that it needs.
        most: the number that it takes; less than `fewest` if it also needs others.
        exact: the types of positional arguments that need no conversion: Any for every type, None for none.
            Empty if no argument needs one.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        """Read the signature of *function*; text annotations are resolved here, each for itself."""
        self._signature = signature_of(function)
        parameters = list(self._signature.parameters.values())
        wanted = {parameter.name: annotation_of(function, parameter) for parameter in parameters}
        self._converter = _converter(parameters, wanted)
        positional = [parameter for parameter in parameters if parameter.kind in _POSITIONAL]
        required = [parameter for parameter in parameters if parameter.default is parameter.empty]
        self.fewest = len(required)
        self.most = len(positional) if all(each.kind in _POSITIONAL for each in required) else -1
        self.exact = tuple(_exact(wanted[each.name]) for each in positional) if self._converter else ()
        self._names = tuple(parameter.name for parameter in positional)

    def bind(self, args: Sequence[Any], kwargs: dict[str, Any], convert: bool = True) -> Arguments:
        """Return *args* and *kwargs*; if *convert* is set, converted to the annotations.

        Raises:
            ArgumentError: they do not fit; the message names the parameter.
        """
        if not kwargs and self.fewest <= len(args) <= self.most:
            return self._converted(args, convert), kwargs
        try:
            bound = self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise ArgumentError(f"{error}; it takes {self._signature}") from None
        if not convert or self._converter is None:
            return args, kwargs
        converted = _convert(bound.arguments, self._converter)
        for name in bound.arguments:
            bound.arguments[name] = getattr(converted, name)
        return bound.args, bound.kwargs

    def _converted(self, args: Sequence[Any], convert: bool) -> Sequence[Any]:
        """Return positional arguments, converted without `inspect`."""
        if not convert or self._converter is None:
            return args
        converted = _convert(dict(zip(self._names, args, strict=False)), self._converter)
        return [getattr(converted, name) for name in self._names[: len(args)]]


def _exact(wanted: Any) -> Any:
    return wanted if wanted in _EXACT or wanted is Any else None


def _converter(parameters: list[inspect.Parameter], wanted: dict[str, Any]) -> type[msgspec.Struct] | None:
    """Return a struct with one field for each parameter, or None if no parameter is annotated."""
    if all(each is Any for each in wanted.values()):
        return None
    fields = [
        (parameter.name, _field(parameter, wanted[parameter.name]), msgspec.field(default=None))
        for parameter in parameters
    ]
    return msgspec.defstruct("Arguments", fields)


def _field(parameter: inspect.Parameter, wanted: Any) -> Any:
    if parameter.kind is parameter.VAR_POSITIONAL:
        return tuple[wanted, ...]
    if parameter.kind is parameter.VAR_KEYWORD:
        return dict[str, wanted]
    return wanted


def _convert(arguments: dict[str, Any], converter: type[msgspec.Struct]) -> msgspec.Struct:
    try:
        return _converted(arguments, converter)
    except msgspec.ValidationError as error:
        raise ArgumentError(_message(str(error))) from None
    except Exception as error:
        raise ArgumentError(f"an argument cannot be converted: {type(error).__name__}: {error}") from error


def _converted(arguments: dict[str, Any], converter: type[msgspec.Struct]) -> msgspec.Struct:
    try:
        return msgspec.convert(arguments, converter, strict=True, dec_hook=from_data)
    except msgspec.ValidationError:
        # An annotation may ask for the plain form of a value that is none, such as `str` for a UUID.
        plain = {name: _fitting(name, value, converter) for name, value in arguments.items()}
        return msgspec.convert(plain, converter, strict=True, dec_hook=from_data)


def _fitting(name: str, value: Any, converter: type[msgspec.Struct]) -> Any:
    """Return *value*, or its plain form if only that fits the annotation."""
    try:
        msgspec.convert({name: value}, converter, strict=True, dec_hook=from_data)
    except msgspec.ValidationError:
        return as_plain(value)
    return value


def _message(text: str) -> str:
    """Turn "Expected `int`, got `str` - at `$.name[1]`" into a sentence that names the parameter."""
    what, at, path = text.partition(" - at `$.")
    return f"argument {path.rstrip('`')}: {what[:1].lower()}{what[1:]}" if at else text
