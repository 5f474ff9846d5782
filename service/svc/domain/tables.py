"""Mappings with very many entries, which grow a small part at a time.

A dict grows in one step, which takes 130 ms at 700,000 entries and 250 ms at 1,400,000. So a mapping that has
an entry for each job, chunk, event or lease is a `Table` of many dicts. One that is mostly
small begins as a dict, and is `split` if it grows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Generic, TypeAlias, TypeVar

K = TypeVar("K")
V = TypeVar("V")

#: Numbers that differ in these bits alone are in one part.
PART_BITS = 12
#: Parts of the keys that are no ascending numbers.
HASHED_PARTS = 256
#: A part that shrinks to one of these sizes gives the memory of its removed entries back.
SHRUNK = frozenset((16, 128, 512, 2048))
#: Entries of a dict that becomes a table with the next one: to copy them takes half a millisecond.
SPLIT = 4096


def by_number(number: int) -> int:
    """Return the part of a number; for numbers that are given out one after the other, each once.

    A hash would not do: all parts would be equally full, and grow one right after the other.
    """
    return number >> PART_BITS


def by_hash(key: object) -> int:
    """Return the part of a text or a tuple; the parts differ in size by some percent, and so grow apart."""
    return hash(key) % HASHED_PARTS


def by_digits(number: int) -> int:
    """Return the part of a number that a client chose: nobody can choose many that are in one part."""
    return hash(str(number)) % HASHED_PARTS


class Table(Generic[K, V]):
    """A mapping in parts. Those by number are in the order of their numbers if they come in that order.

    Attributes:
        parts: the entries of each part. A hot path may read and add some here, without a call.
    """

    __slots__ = ("_part_of", "parts")

    def __init__(self, part_of: Callable[[K], int]) -> None:
        """Start empty; *part_of* is `by_number` or `by_hash`."""
        self._part_of = part_of
        self.parts: defaultdict[int, dict[K, V]] = defaultdict(dict)

    def __len__(self) -> int:
        """Return the number of entries, of which each part is asked."""
        return sum(map(len, self.parts.values()))

    def __bool__(self) -> bool:
        """Return whether there is any entry."""
        return any(self.parts.values())

    def __contains__(self, key: K) -> bool:
        """Return whether there is an entry for *key*."""
        return key in self.parts.get(self._part_of(key), ())

    def __getitem__(self, key: K) -> V:
        """Return the value of *key*.

        Raises:
            KeyError: there is none.
        """
        return self.parts.get(self._part_of(key), {})[key]

    def __setitem__(self, key: K, value: V) -> None:
        """Set the value of *key*."""
        self.parts[self._part_of(key)][key] = value

    def __iter__(self) -> Iterator[K]:
        """Iterate over the keys."""
        return chain.from_iterable(self.parts.values())

    def get(self, key: K) -> V | None:
        """Return the value of *key*, or None."""
        part = self.parts.get(self._part_of(key))
        return None if part is None else part.get(key)

    def pop(self, key: K) -> V | None:
        """Remove *key* and return its value; None if there is none."""
        number = self._part_of(key)
        part = self.parts.get(number)
        if part is None:
            return None
        found = part.pop(key, None)
        if not part:
            del self.parts[number]
        elif len(part) in SHRUNK:
            self.shrink(number)
        return found

    def shrink(self, number: int) -> None:
        """Give the memory of removed entries of a part back."""
        self.parts[number] = dict(self.parts[number])

    def drop_empty_parts(self) -> None:
        """Forget the parts that a hot path has emptied."""
        for number in [number for number, part in self.parts.items() if not part]:
            del self.parts[number]

    def values(self) -> Iterator[V]:
        """Iterate over the values."""
        return chain.from_iterable(part.values() for part in self.parts.values())

    def since(self: Table[int, V], number: int) -> Iterator[V]:
        """Yield the values by number from *number* on; one may be removed meanwhile."""
        for each in [each for each in self.parts if each >= by_number(number)]:
            yield from [value for key, value in self.parts[each].items() if key >= number]

    def until(self: Table[int, V], number: int) -> Iterator[V]:
        """Yield the values by number up to *number*, the last one first."""
        for each in [each for each in reversed(self.parts) if each <= by_number(number)]:
            yield from [value for key, value in reversed(self.parts[each].items()) if key <= number]

    def items(self) -> Iterator[tuple[K, V]]:
        """Iterate over the keys and values."""
        return chain.from_iterable(part.items() for part in self.parts.values())


#: One of many mappings: mostly they have few entries, but each may have very many.
Mapped: TypeAlias = dict[K, V] | Table[K, V]


def split(entries: dict[K, V], part_of: Callable[[K], int]) -> Table[K, V]:
    """Return a table of the entries."""
    table: Table[K, V] = Table(part_of)
    for key, value in entries.items():
        table[key] = value
    return table


def in_parts(entries: Mapped[K, V]) -> Iterator[dict[K, V]]:
    """Yield the entries in dicts that are not too large for one step; they may come and go between these."""
    if isinstance(entries, Table):
        for number in list(entries.parts):
            if part := entries.parts.get(number):
                yield part
    else:
        yield entries


class OrderedTable(Generic[K, V]):
    """A table of texts or tuples that is in the order in which they came."""

    __slots__ = ("_came", "_entries", "_numbers")

    def __init__(self) -> None:
        """Start empty."""
        self._came = 0
        self._numbers: Table[K, int] = Table(by_hash)
        self._entries: Table[int, tuple[K, V]] = Table(by_number)

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self._entries)

    def __contains__(self, key: K) -> bool:
        """Return whether there is an entry for *key*."""
        return key in self._numbers

    def __iter__(self) -> Iterator[K]:
        """Iterate over the keys."""
        return iter(key for key, _ in self._entries.values())

    def __setitem__(self, key: K, value: V) -> None:
        """Set the value of *key*, which keeps its place if it has one."""
        number = self._numbers.get(key)
        if number is None:
            self._came += 1
            number = self._numbers[key] = self._came
        self._entries[number] = key, value

    def pop(self, key: K) -> None:
        """Remove *key*, if it is there."""
        number = self._numbers.pop(key)
        if number is not None:
            self._entries.pop(number)

    def items(self) -> Iterator[tuple[K, V]]:
        """Iterate over the keys and values."""
        return self._entries.values()
