"""The stack, marks and memo of `pickle_machine`, and what they bound: depth, sharing, containers and keys.

Notes stand in place of objects: where each begins, how deep it is, and whether a stranger can choose its
hash. A method that meets a broken rule raises `BadRequest`.
"""

from __future__ import annotations

from typing import Final

from svc.errors import BadRequest

#: Containers within containers, and open marks, at most.
NESTING_MAX: Final = 64
#: Lists, dicts, sets and tuples in one message at most: each takes several times as long as other data.
CONTAINERS_MAX: Final = 50_000
#: Bytes at most by which the data grows when all sharing is written out.
EXPANDED_BYTES_MAX: Final = 16 * 1024 * 1024
#: Keys and members at most that are tuples, frozensets or large integers: their hashes are not seeded, so
#: a stranger can make them all collide and the time quadratic.
FORGEABLE_KEYS_MAX: Final = 512

# An entry of the abstract stack is the place where the object begins, shifted, with these bits below.
BITS = 0xFF
DEPTH = 0x7F
FORGEABLE = 0x80
SHIFT = 8
# Bytes that a set takes beside its members.
SET_BYTES = 200


class Container:
    """A list, dict or set on the abstract stack. It can grow until it is referred to."""

    __slots__ = ("entry", "kind", "open", "size")

    def __init__(self, entry: int, kind: type, size: int) -> None:
        """Be a container of *kind* that has *size* bytes so far."""
        self.entry = entry
        self.kind = kind
        self.size = size
        self.open = True


Slot = int | Container


class Stack:
    """The stack, marks and memo of an unpickler, with notes in place of objects.

    A place is a position in the message plus `shared`, the bytes that sharing has repeated before it;
    the difference of two places is the size of what lies between when nothing is shared.
    """

    __slots__ = ("containers", "floor", "forgeable", "limit", "marks", "memo", "shared", "stack")

    def __init__(self, limit: int) -> None:
        """Be empty; *limit* is how many bytes sharing may repeat."""
        self.limit = limit
        self.shared = 0
        self.containers = 0
        self.forgeable = 0
        self.floor = 0  # what lies below the last mark is out of reach
        self.stack: list[Slot] = []
        self.marks: list[tuple[int, int]] = []
        self.memo: list[Slot] = []

    def memoize(self, position: int) -> int:
        """Note the top of the stack with its size; return the position after the opcode at *position*."""
        stack = self.stack
        if len(stack) <= self.floor:
            self.need(1)
        top = stack[-1]
        if not isinstance(top, Container):
            top = (position + self.shared - (top >> SHIFT)) << SHIFT | top & BITS
        self.memo.append(top)
        return position + 1

    def remember(self, index: int, position: int) -> None:
        """Note the top of the stack with its size; all picklers number from 0 without a gap."""
        if index != len(self.memo):
            raise BadRequest("the request has memo numbers out of order")
        self.memoize(position)

    def recall(self, index: int, position: int) -> None:
        """Push a remembered object as if it were written out again.

        It can no longer grow: every pickler finishes an object before it refers to it, but for one that
        contains itself. So what is known of its size and depth is final.
        """
        if index >= len(self.memo):
            raise BadRequest("the request refers to an object that it does not have")
        known = self.memo[index]
        if isinstance(known, Container):
            known.open = False
            known = known.size << SHIFT | known.entry & BITS
        self.push(position, known & BITS)
        self.share(known >> SHIFT)

    def share(self, size: int) -> None:
        """Count *size* bytes that sharing repeats, or that an object takes beside its content."""
        self.shared += size
        if self.shared > self.limit:
            raise BadRequest("the request grows too large when its shared objects are written out")

    def push(self, position: int, bits: int = 0) -> None:
        """Push an object that begins at *position*."""
        self.stack.append((position + self.shared) << SHIFT | bits)

    def need(self, count: int) -> None:
        """Refuse the message if fewer than *count* objects lie above the last mark."""
        if len(self.stack) - self.floor < count:
            raise BadRequest("the request takes objects that it does not have")

    def take(self, count: int) -> list[Slot]:
        """Remove and return the *count* objects on top."""
        self.need(count)
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def take_to_mark(self) -> tuple[list[Slot], int]:
        """Remove and return the objects above the last mark, and the mark's place."""
        if not self.marks:
            raise BadRequest("the request closes what it did not open")
        items = self.stack[self.floor :]
        del self.stack[self.floor :]
        self.floor, place = self.marks.pop()
        return items, place

    def around(self, items: list[Slot]) -> int:
        """Return the depth of a container of *items*."""
        self.count_container()
        return self.depth_around(items)

    def depth_around(self, items: list[Slot]) -> int:
        """Return the depth that a container has at least to hold *items*."""
        depth = 0
        for item in items:
            if isinstance(item, Container):
                item = item.entry  # noqa: PLW2901
            if item & DEPTH > depth:  # noqa: PLR1730  # max() takes thrice as long, for each object there is
                depth = item & DEPTH
        if depth >= NESTING_MAX:
            raise BadRequest(f"the request nests deeper than {NESTING_MAX} levels")
        return depth + 1

    def count_container(self) -> None:
        """Count one more list, dict, set or tuple."""
        self.containers += 1
        if self.containers > CONTAINERS_MAX:
            raise BadRequest(
                f"the request has more than {CONTAINERS_MAX} lists and the like; send less at once"
            )

    def hash_all(self, keys: list[Slot]) -> None:
        """Count those of *keys* whose hash a stranger can choose."""
        self.forgeable += sum(1 for key in keys if not isinstance(key, Container) and key & FORGEABLE)
        if self.forgeable > FORGEABLE_KEYS_MAX:
            raise BadRequest("the request has too many keys that are tuples or large integers")
