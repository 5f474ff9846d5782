"""Numbers on the command line: each option declares between which bounds its value lies."""

from __future__ import annotations

from collections.abc import Callable

import typer

from svc.domain.limits import CONSUMERS_MAX, SECONDS_MAX
from svc.errors import ConfigurationError
from svc.settings import parse_seconds, parse_size

#: The longest time that something waits or is kept.
CENTURY = f"{SECONDS_MAX / 86400:.0f}d"
#: The number of things that a limit may allow at most.
COUNT_MAX = 1_000_000_000
#: The most that is said of space on a disk.
DISK_MAX = "1048576GiB"


class Bounded:
    """Reads the value of an option, and refuses one that is out of bounds.

    Attributes:
        min: the smallest value, in seconds, bytes or whatever is counted.
        max: the largest one.
        words: values that are no numbers; they are taken as they are.
    """

    def __init__(
        self, parse: Callable[[str], float], least: str, most: str, words: tuple[str, ...] = ()
    ) -> None:
        """Read by *parse*; *least* and *most* are the bounds as a user would write them."""
        self.__name__ = getattr(parse, "__name__", "number")
        self.min, self.max, self.words = parse(least), parse(most), words
        self._parse, self._range = parse, f"{least} to {most}"

    def __call__(self, value: object) -> float | str:
        """Return the number that *value* says, or the word.

        Raises:
            typer.BadParameter: it is neither, or out of bounds.
        """
        text = str(value).strip()
        if text.lower() in self.words:
            return text.lower()
        try:
            number = self._parse(text)
        except ConfigurationError as error:
            raise typer.BadParameter(error.message) from None
        if not self.min <= number <= self.max:
            either = "".join(f"{word}, or " for word in self.words)
            raise typer.BadParameter(f"{text} is out of bounds; it goes from {either}{self._range}")
        return number


def seconds(least: str, most: str) -> Bounded:
    """Return what reads a duration from *least* to *most*."""
    return Bounded(parse_seconds, least, most)


def size(least: str, most: str, *words: str) -> Bounded:
    """Return what reads a number of bytes from *least* to *most*, or one of *words*."""
    return Bounded(parse_size, least, most, words)


def consumers() -> Bounded:
    """Return what reads a number of consumer processes, or `auto`."""
    return Bounded(_count, "1", str(CONSUMERS_MAX), ("auto",))


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ConfigurationError(f"{text!r} is neither `auto` nor a number")
    return int(text)
