"""The declaration of a setting: one field of a settings class, from which all else about it is derived.

That is its flag, its variable, its key in `svc.toml`, the check of its value, its help, its row in the docs.
This module has the declaration itself and the kinds that are numbers; `settings` has the other kinds.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from typing import Any

from svc.errors import ConfigurationError

#: Days of any duration: a hundred years.
DAYS_MAX = 36_500
#: The longest time that something waits or is kept, as a user writes it.
CENTURY = f"{DAYS_MAX}d"
#: The number of things that a limit may allow at most.
COUNT_MAX = "1000000000"
#: The most space on a disk, or of memory, that a setting may name.
DISK_MAX = "1048576GiB"

_DURATION = re.compile(r"(?P<number>\d+(?:\.\d*)?|\.\d+)(?P<unit>ms|s|m|h|d)?", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
#: Python converts no number of thousands of digits.
_DIGITS_MAX = 20
_INTEGER = re.compile(rf"-?[0-9]{{1,{_DIGITS_MAX}}}")
_SIZE = re.compile(rf"(\d{{1,{_DIGITS_MAX}}})\s*([KMG]i?B?|B)?", re.IGNORECASE | re.ASCII)
_SETTING, _GROUP = "setting", "group"


def parse_seconds(text: str | float) -> float:
    """Return the seconds in a duration such as `90`, `1.5`, `500ms`, `10s`, `5m`, `2h` or `7d`.

    Raises:
        ConfigurationError: *text* is not a duration, or over a hundred years.
    """
    match = _DURATION.fullmatch(str(text).strip())
    if match is None:
        raise ConfigurationError(
            f"{text!r} is not a duration; write seconds, or for instance 500ms, 5m, 2h, 7d"
        )
    seconds = float(match["number"]) * _SECONDS[match["unit"] or "s"]
    if seconds > DAYS_MAX * _SECONDS["d"]:
        raise ConfigurationError(f"{text!r} is too long; a duration is a hundred years at most ({CENTURY})")
    return seconds


def parse_size(text: str | int) -> int:
    """Return the bytes in a size such as `65536`, `512KiB`, `4MiB` or `1GiB`.

    Raises:
        ConfigurationError: *text* is not a size.
    """
    match = _SIZE.fullmatch(str(text).strip())
    if match is None:
        raise ConfigurationError(f"{text!r} is not a size; write bytes, or for instance 512KiB, 4MiB")
    return int(match[1]) << {"K": 10, "M": 20, "G": 30}.get((match[2] or "B")[0].upper(), 0)


def written_size(count: int) -> str:
    """Return a number of bytes as `parse_size` reads it, in the largest unit that leaves no rest."""
    units = ((30, "GiB"), (20, "MiB"), (10, "KiB"))
    return next((f"{count >> by}{unit}" for by, unit in units if count and not count % (1 << by)), str(count))


def parse_integer(text: str) -> int:
    """Return the number in *text*.

    Raises:
        ConfigurationError: *text* is not a whole number in digits.
    """
    if not _INTEGER.fullmatch(text):
        raise ConfigurationError(f"{text!r} is not a whole number")
    return int(text)


class Number:
    """Reads a number that has bounds, or a word in its place.

    Attributes:
        least: the smallest value, in seconds, bytes or whatever is counted.
        most: the largest one.
        words: the values of the words.
    """

    def __init__(
        self, parse: Callable[[str], float], least: str, most: str, words: Mapping[str, Any] | None = None
    ) -> None:
        """Read by *parse*; *least* and *most* are the bounds as a user would write them."""
        self.least, self.most, self.words = parse(least), parse(most), words or {}
        self._parse, self._range = parse, f"{least} to {most}"

    def __call__(self, text: str) -> Any:
        """Return the number that *text* names, or the value of the word.

        Raises:
            ConfigurationError: it is neither, or out of bounds.
        """
        word = text.strip().lower()
        if word in self.words:
            return self.words[word]
        either = "".join(f"{word}, or " for word in self.words)
        try:
            number = self._parse(text.strip())
        except ConfigurationError as error:
            raise ConfigurationError(f"{error}; it goes from {either}{self._range}") from None
        if not self.least <= number <= self.most:
            raise ConfigurationError(f"{text} is out of bounds; it goes from {either}{self._range}")
        return number


@dataclass(frozen=True, slots=True)
class Setting:
    """The declaration of a setting.

    Attributes:
        help: one sentence for the help and the docs.
        metavar: the form of its value; empty for a switch, which has none.
        default: the text that holds if nobody sets it; None for no value.
        read: returns the value of a text, and raises `ConfigurationError` if it has none.
        shown: the default in the help; empty for *default* itself.
        name: its name; empty for that of the field.
        variable: whether it has a variable and a key in `svc.toml`; a flag has every setting.
    """

    help: str
    metavar: str
    default: str | None
    read: Callable[[str], Any]
    shown: str = ""
    name: str = ""
    variable: bool = True


def setting(
    read: Callable[[str], Any], metavar: str, default: str | None, text: str, **more: Any
) -> Any:  # the type is that of the field
    """Return a field of a settings class, with *text* as its help and *more* attributes of its `Setting`."""
    declaration = Setting(text, metavar, default, read, **more)
    value = None if default is None else read(default)
    return field(default=value, metadata={_SETTING: declaration})


def switch(text: str, *, variable: bool = True) -> Any:
    """Return a field that is True if its flag is set."""
    declaration = Setting(text, "", None, bool, variable=variable)
    return field(default=False, metadata={_SETTING: declaration})


def seconds(default: str, least: str, most: str, text: str, *, name: str = "") -> Any:
    """Return a field with a duration, in seconds."""
    return setting(Number(parse_seconds, least, most), "SECONDS", default, text, name=name)


def size(default: str, least: str, most: str, text: str, *, name: str = "") -> Any:
    """Return a field with a number of bytes."""
    return setting(Number(parse_size, least, most), "BYTES", default, text, name=name)


def count(default: str | None, least: str, text: str, **more: Any) -> Any:
    """Return a field with a number of things."""
    return setting(Number(parse_integer, least, COUNT_MAX), "N", default, text, **more)


def group(kind: type[Any]) -> Any:
    """Return a field with the settings of another class, which stand beside those of its own."""
    return field(default_factory=kind, metadata={_GROUP: kind})


def declared(kind: type[Any]) -> dict[str, Setting]:
    """Return the settings of a class by name: its own before those that it inherits."""
    found: dict[str, Setting] = {}
    for each in _own_first(kind):
        if inner := each.metadata.get(_GROUP):
            found |= declared(inner)
        elif declaration := each.metadata.get(_SETTING):
            found[declaration.name or each.name] = declaration
    return found


def build(kind: type[Any], values: Mapping[str, Any]) -> Any:
    """Return the settings of a class with the *values* of all settings, by name."""
    found: dict[str, Any] = {}
    for each in fields(kind):
        if inner := each.metadata.get(_GROUP):
            found[each.name] = build(inner, values)
        elif declaration := each.metadata.get(_SETTING):
            found[each.name] = values[declaration.name or each.name]
    return kind(**found)


def _own_first(kind: type[Any]) -> list[Field[Any]]:
    """Return the fields of a class, its own first; one that is declared anew stands beside its first ones."""
    places = {
        name: place for place, owner in enumerate(kind.__mro__) for name in inspect.get_annotations(owner)
    }
    return sorted(fields(kind), key=lambda each: places[each.name])
