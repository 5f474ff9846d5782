"""The stack, marks and memo of `pickle_machine`, with the bounds of depth, sharing, containers and keys.

The stack holds notes in place of objects: the position at which an object begins, its depth, and whether an
attacker can choose its hash. A method raises `BadRequest` if the pickle breaks a rule.
"""

from __future__ import annotations

from typing import Final

from svc.errors import BadRequest

#: The most levels of containers within containers, and the most open marks.
NESTING_MAX: Final = 64
#: The most lists, dicts, sets and tuples in one message: each takes several times as long as other data.
CONTAINERS_MAX: Final = 50_000
#: The most bytes by which the data may grow when all shared objects are written out.
EXPANDED_BYTES_MAX: Final = 16 * 1024 * 1024
#: The most keys and members that are tuples, frozensets or large integers: their hashes are not seeded, so
#: an attacker can make them all collide, which makes the time quadratic.
FORGEABLE_KEYS_MAX: Final = 512

# An entry of the abstract stack is the place at which the object begins, shifted, with these bits below.
BITS = 0xFF
DEPTH = 0x7F
FORGEABLE = 0x80
SHIFT = 8
# Bytes of a set in addition to its members.
SET_BYTES = 200


class Container:
    """A list, dict or set on the abstract stack. It can grow until the pickle refers to it again."""

    __slots__ = ("entry", "kind", "open", "size")

    def __init__(self, entry: int, kind: type, size: int) -> None:
        """Note a container of *kind* with *size* bytes so far."""
        self.entry = entry
        self.kind = kind
        self.size = size
        self.open = True


Slot = int | Container


class Stack:
    """The stack, marks and memo of an unpickler, with notes in place of objects.

    A place is a position in the message plus `shared`, the bytes that sharing has repeated before it. The
    difference of two places is the size of the data between them with all shared objects written out.
    """

    __slots__ = ("containers", "floor", "forgeable", "limit", "marks", "memo", "shared", "stack")

    def __init__(self, limit: int) -> None:
        """Begin empty; *limit* is how many bytes sharing may repeat."""
        self.limit = limit
        self.shared = 0
        self.containers = 0
        self.forgeable = 0
        self.floor = 0  # objects below the last mark cannot be taken
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
        """Note the top of the stack with its size as number *index*; picklers count from 0 without a gap."""
        if index != len(self.memo):
            raise BadRequest("the request has memo numbers out of order")
        self.memoize(position)

    def recall(self, index: int, position: int) -> None:
        """Push a remembered object as if it were written out again.

        It can no longer grow: every pickler finishes an object before it refers to it, unless the object
        contains itself. So its noted size and depth are final.
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
        """Count *size* bytes that sharing repeats, or that an object takes in addition to its content."""
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
        """Return the least depth of a container of *items*."""
        depth = 0
        for item in items:
            if isinstance(item, Container):
                item = item.entry  # noqa: PLW2901
            if item & DEPTH > depth:  # noqa: PLR1730  # max() takes three times as long, for every object
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
        """Count those of *keys* whose hash an attacker can choose."""
        self.forgeable += sum(1 for key in keys if not isinstance(key, Container) and key & FORGEABLE)
        if self.forgeable > FORGEABLE_KEYS_MAX:
            raise BadRequest("the request has too many keys that are tuples or large integers")
