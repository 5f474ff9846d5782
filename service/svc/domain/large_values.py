"""The large values: arguments and results that are in the journal piece by piece, each in a row of its own.

A group has the large arguments of one job, or the large result of one attempt at it. The arguments come
before their job is submitted, and the result before it is acknowledged; until then the group is *unclaimed*.
Only numbers of rows are in memory.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator

from svc.domain import events as e

#: The place of a result among the large values of an attempt; arguments have the places 1, 2, ….
RESULT_PLACE = 0


class LargeValue:
    """One value: its size in bytes, how many are stored, and the rows that have them."""

    __slots__ = ("piece", "rows", "size", "stored")

    def __init__(self, size: int, piece: int) -> None:
        """Begin without rows, each of which will have *piece* bytes; the last one may have less."""
        self.size = size
        self.piece = piece
        self.stored = 0
        self.rows = array("Q")

    @property
    def whole(self) -> bool:
        """Whether all of it is stored."""
        return self.stored == self.size

    def row_at(self, offset: int) -> int | None:
        """Return the row whose piece begins at *offset*, or None."""
        index, rest = divmod(offset, self.piece)
        return self.rows[index] if not rest and 0 <= index < len(self.rows) else None


class ValueGroup:
    """The large arguments of a job (token 0), or the result of the attempt under a token."""

    __slots__ = ("at", "number", "origin", "token", "values")

    def __init__(self, origin: str, number: int, token: int) -> None:
        """Begin without values."""
        self.origin = origin
        self.number = number
        self.token = token
        #: By their places.
        self.values: dict[int, LargeValue] = {}
        #: When the last piece came.
        self.at = 0.0


class LargeValues:
    """All large values, by the jobs that they belong to.

    Attributes:
        count: the number of all values.
        arguments: that of arguments among them.
        size: the bytes of all values, as announced with their first pieces.
        arguments_size: those of arguments among them.
        missing: the bytes among them that are not stored yet.
        unclaimed: the groups that have no job or no recorded result, oldest first.
        unclaimed_results: the number of results among them.
        by_origin: all groups, by origin, then by number and token.
    """

    def __init__(self) -> None:
        """Begin empty."""
        self.count = self.arguments = self.unclaimed_results = 0
        self.size = self.arguments_size = self.missing = 0
        self.unclaimed: dict[tuple[str, int, int], ValueGroup] = {}
        self.by_origin: dict[str, dict[tuple[int, int], ValueGroup]] = {}
        #: The results that were recorded, by origin and number.
        self._results: dict[tuple[str, int], ValueGroup] = {}

    def __iter__(self) -> Iterator[ValueGroup]:
        """Return all groups."""
        return (group for groups in self.by_origin.values() for group in groups.values())

    def find(self, origin: str, number: int, token: int, place: int) -> LargeValue | None:
        """Return a value, or None; it may not be whole."""
        group = self.by_origin.get(origin, {}).get((number, token))
        return None if group is None else group.values.get(place)

    def result(self, origin: str, number: int) -> LargeValue | None:
        """Return the large result of a job that succeeded, or None."""
        group = self._results.get((origin, number))
        return None if group is None else group.values.get(RESULT_PLACE)

    def has_results(self, origin: str, numbers: Iterable[int], token: int) -> bool:
        """Return whether the results of all these jobs under *token* are stored."""
        found = [self.find(origin, number, token, RESULT_PLACE) for number in numbers]
        return all(value is not None and value.whole for value in found)

    def add(self, sequence: int, event: e.Stored) -> list[int]:
        """Add a piece that row *sequence* has; return rows that are of no use any more.

        The first piece begins the value anew. A piece that does not follow the one before it is of no use,
        such as the last one of a forgotten value: the journal keeps its newest row.
        """
        if event.offset and self.find(event.origin, event.number, event.token, event.place) is None:
            return [sequence]
        groups = self.by_origin.setdefault(event.origin, {})
        key = (event.number, event.token)
        group = groups.get(key)
        if group is None:
            group = groups[key] = ValueGroup(event.origin, *key)
            self.unclaimed[event.origin, *key] = group
            self.unclaimed_results += bool(event.token)
        group.at = event.at
        gone: list[int] = []
        value = group.values.get(event.place)
        if value is None or not event.offset:
            gone = self._take_out(group, event.place)
            value = group.values[event.place] = LargeValue(event.size, len(event.data))
            self._count(group, 1, event.size, event.size)
        if event.offset != value.stored or event.size != value.size:
            return [*gone, sequence]
        value.rows.append(sequence)
        value.stored += len(event.data)
        self.missing -= len(event.data)
        return gone

    def claim_arguments(self, origin: str, number: int) -> None:
        """Note that a job was submitted whose arguments these are."""
        self._pop_unclaimed((origin, number, 0))

    def claim_results(self, origin: str, first: int, stop: int, token: int) -> None:
        """Note that the results of jobs [first, stop) under *token* were recorded."""
        if stop - first > len(self.unclaimed):
            of_lease = [key for key in self.unclaimed if key[0] == origin and key[2] == token]
            numbers = [number for _, number, _ in of_lease if first <= number < stop]
        else:
            numbers = [number for number in range(first, stop) if (origin, number, token) in self.unclaimed]
        for number in numbers:
            group = self._pop_unclaimed((origin, number, token))
            if group is not None:
                self._results[origin, number] = group

    def renew(self, now: float) -> None:
        """Give the values that wait for a job their whole time again."""
        for group in self.unclaimed.values():
            group.at = now

    def drop_arguments(self, origin: str, first: int, stop: int) -> list[int]:
        """Forget the large arguments of jobs [first, stop); return their rows."""
        return self._drop_each(origin, lambda number, token: first <= number < stop and not token)

    def drop_jobs(self, origin: str, first: int, stop: int) -> list[int]:
        """Forget all large values of jobs [first, stop); return their rows."""
        return self._drop_each(origin, lambda number, token: first <= number < stop)

    def drop(self, group: ValueGroup) -> list[int]:
        """Forget a group; return its rows."""
        rows = [row for place in list(group.values) for row in self._take_out(group, place)]
        groups = self.by_origin[group.origin]
        del groups[group.number, group.token]
        if not groups:
            del self.by_origin[group.origin]
        self._pop_unclaimed((group.origin, group.number, group.token))
        if self._results.get((group.origin, group.number)) is group:
            del self._results[group.origin, group.number]
        return rows

    def _drop_each(self, origin: str, meant: Callable[[int, int], bool]) -> list[int]:
        groups = self.by_origin.get(origin)
        if groups is None:
            return []
        chosen = [group for (number, token), group in groups.items() if meant(number, token)]
        return [row for group in chosen for row in self.drop(group)]

    def _take_out(self, group: ValueGroup, place: int) -> list[int]:
        value = group.values.pop(place, None)
        if value is None:
            return []
        self._count(group, -1, -value.size, value.stored - value.size)
        return value.rows.tolist()

    def _pop_unclaimed(self, key: tuple[str, int, int]) -> ValueGroup | None:
        group = self.unclaimed.pop(key, None)
        self.unclaimed_results -= group is not None and bool(group.token)
        return group

    def _count(self, group: ValueGroup, values: int, size: int, missing: int) -> None:
        self.count += values
        self.size += size
        self.missing += missing
        if not group.token:
            self.arguments += values
            self.arguments_size += size
