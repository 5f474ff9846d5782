"""The abstract machine of `pickle_scan`: follows the opcodes of a pickle without executing any.

It refuses a pickle that is not plain data within bounds. Its notes on objects are in `pickle_stack`.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Final, NoReturn

from svc.errors import BadRequest
from svc.server.pickle_stack import (
    DEPTH,
    FORGEABLE,
    NESTING_MAX,
    SET_BYTES,
    SHIFT,
    Container,
    Slot,
    Stack,
)

#: The most opcodes of one message: bounds the time (0.1 to 1 µs each) and the memory (some 150 bytes each).
OPERATIONS_MAX: Final = 250_000
#: The most bytes, or characters, of one integer.
INTEGER_BYTES_MAX: Final = 1024
#: The most lone surrogates in all texts. To decode one takes 0.25 µs, a hundred times as long as another
#: character, as Python calls an error handler for it.
SURROGATES_MAX: Final = 10_000
#: The first byte of each surrogate; and what tells them from other characters with this byte, as letters.
_LEAD: Final = b"\xed"
_CLASSES: Final = bytes(
    b"L"[0] if byte == 0xED else b"S"[0] if 0xA0 <= byte < 0xC0 else b"."[0] for byte in range(256)
)
_LINE_MAX = 64


class Examination:
    """Scans the opcodes of *data* in steps; time and memory are linear in its size."""

    __slots__ = ("_left", "_limit", "_machine")

    def __init__(self, data: bytes, max_operations: int, max_expanded_bytes: int) -> None:
        """Begin with the first opcode."""
        self._machine = _Machine(data, max_expanded_bytes)
        self._left = self._limit = max_operations

    def proceed(self, operations: int) -> bool:
        """Scan at most *operations* opcodes; return whether all of *data* is now known to be harmless.

        Raises:
            BadRequest: it is not plain data within bounds.
        """
        done = self._machine.run(min(operations, self._left))
        self._left -= operations
        if not done and self._left <= 0:
            raise BadRequest(f"the request has more than {self._limit} parts; send less at once")
        return done


class _Machine(Stack):
    """The abstract machine: the effect of each opcode on the stack."""

    __slots__ = ("data", "position", "short", "surrogates")

    def __init__(self, data: bytes, limit: int) -> None:
        super().__init__(limit)
        self.data = data
        self.position = 0
        self.surrogates = 0
        #: The opcodes of short values that need no further look. Texts are looked into only if the data as a
        #: whole could have too many surrogates.
        self.short = _SHORT if data.count(_LEAD) <= SURROGATES_MAX else b""

    def run(self, operations: int) -> bool:
        """Take at most *operations* further steps; return whether the whole message is harmless."""
        data, append, widths, steps = self.data, self.stack.append, _ATOM_WIDTHS, _STEPS
        position, short = self.position, self.short
        try:
            for _ in range(operations):
                operation = data[position]
                width = widths[operation]
                if width:
                    append((position + self.shared) << SHIFT)
                    position += width
                elif operation in short:
                    append((position + self.shared) << SHIFT)
                    position += 2 + data[position + 1]  # beyond the end, the next step raises IndexError
                else:
                    position = steps[operation](self, position)
                    if position < 0:
                        return True
        except IndexError:
            raise BadRequest("the request ends within an object") from None
        self.position = position
        return False

    # Each step gets the position of its opcode and returns that of the next one.

    def refuse(self, position: int) -> NoReturn:
        name = _NAMES.get(self.data[position], "unknown")
        raise BadRequest(
            f"the request has more than plain data in it (pickle opcode {name}); "
            "send None, bool, int, float, str, bytes, tuple, list, dict or set"
        )

    def protocol(self, position: int) -> int:
        if position or self.data[1] > 5:
            raise BadRequest("the request is in an unknown pickle protocol")
        return 2

    def frame(self, position: int) -> int:
        self.sized(position + 1, 8)
        return position + 9

    def stop(self, position: int) -> int:
        if self.marks or len(self.stack) != 1 or position != len(self.data) - 1:
            raise BadRequest("the request is not one whole object")
        return -1

    def sized(self, position: int, width: int) -> int:
        """Return the end of a counted value whose count of *width* bytes is at *position*."""
        end = position + width + int.from_bytes(self.data[position : position + width], "little")
        if end > len(self.data):
            raise BadRequest("the request counts more bytes than it has")
        return end

    def sized1(self, position: int) -> int:
        self.push(position)
        return self.sized(position + 1, 1)

    def sized4(self, position: int) -> int:
        self.push(position)
        return self.sized(position + 1, 4)

    def sized8(self, position: int) -> int:
        self.push(position)
        return self.sized(position + 1, 8)

    def text1(self, position: int) -> int:
        return self.text(position + 2, self.sized1(position))

    def text4(self, position: int) -> int:
        return self.text(position + 5, self.sized4(position))

    def text8(self, position: int) -> int:
        return self.text(position + 9, self.sized8(position))

    def text(self, begin: int, end: int) -> int:
        """Count the surrogates of a text; return its *end*."""
        if not self.short:
            self.surrogates += self.data[begin:end].translate(_CLASSES).count(b"LS")
            if self.surrogates > SURROGATES_MAX:
                raise BadRequest(
                    f"the request has more than {SURROGATES_MAX} lone surrogates in its texts; send bytes"
                )
        return end

    def long1(self, position: int) -> int:
        self.push(position, FORGEABLE)
        return self.sized(position + 1, 1)

    def long4(self, position: int) -> int:
        self.push(position, FORGEABLE)
        end = self.sized(position + 1, 4)
        if end - position > INTEGER_BYTES_MAX:
            raise BadRequest("the request has an integer that is too long")
        return end

    def line(self, position: int, limit: int) -> int:
        """Return the position after the line of at most *limit* bytes that follows the opcode."""
        end = self.data.find(b"\n", position + 1, position + 2 + limit)
        if end < 0:
            raise BadRequest("the request has a line that does not end, or a number that is too long")
        return end + 1

    def number_line(self, position: int) -> int:
        self.push(position, FORGEABLE)
        return self.line(position, INTEGER_BYTES_MAX)

    def float_line(self, position: int) -> int:
        self.push(position)
        return self.line(position, _LINE_MAX)

    def text_line(self, position: int) -> int:
        self.push(position)
        return self.line(position, len(self.data))

    def put(self, position: int) -> int:
        self.remember(self.index_line(position), position)
        return self.line(position, _LINE_MAX)

    def binput(self, position: int) -> int:
        self.remember(self.data[position + 1], position)
        return position + 2

    def long_binput(self, position: int) -> int:
        self.remember(self.index4(position), position)
        return position + 5

    def get(self, position: int) -> int:
        self.recall(self.index_line(position), position)
        return self.line(position, _LINE_MAX)

    def binget(self, position: int) -> int:
        self.recall(self.data[position + 1], position)
        return position + 2

    def long_binget(self, position: int) -> int:
        self.recall(self.index4(position), position)
        return position + 5

    def index4(self, position: int) -> int:
        return int.from_bytes(self.data[position + 1 : position + 5], "little")

    def index_line(self, position: int) -> int:
        digits = self.data[position + 1 : self.line(position, _LINE_MAX) - 1]
        if not digits.isdigit():
            raise BadRequest("the request has a memo number that is none")
        return int(digits)

    def mark(self, position: int) -> int:
        if len(self.marks) >= NESTING_MAX:
            raise BadRequest(f"the request nests deeper than {NESTING_MAX} levels")
        self.marks.append((self.floor, position + self.shared))
        self.floor = len(self.stack)
        return position + 1

    def empty_tuple(self, position: int) -> int:
        self.push(position, FORGEABLE)
        return position + 1

    def short_tuple(self, position: int) -> int:
        items = self.take(self.data[position] - 0x84)
        first = items[0]
        place = (first.entry if isinstance(first, Container) else first) >> SHIFT
        self.stack.append(place << SHIFT | FORGEABLE | self.around(items))
        return position + 1

    def to_tuple(self, position: int) -> int:
        items, place = self.take_to_mark()
        self.stack.append(place << SHIFT | FORGEABLE | self.around(items))
        return position + 1

    def to_frozenset(self, position: int) -> int:
        items, place = self.take_to_mark()
        self.hash_all(items)
        self.stack.append(place << SHIFT | FORGEABLE | self.around(items))
        self.share(SET_BYTES)
        return position + 1

    def empty(self, position: int) -> int:
        """Push an empty list, dict or set."""
        self.count_container()
        kind = _KINDS[self.data[position]]
        self.stack.append(Container((position + self.shared) << SHIFT | 1, kind, 1))
        if kind is set:
            self.share(SET_BYTES)
        return position + 1

    def full(self, position: int) -> int:
        """Make a list or a dict of all objects above the mark."""
        self.count_container()
        items, place = self.take_to_mark()
        self.stack.append(Container(place << SHIFT | 1, _KINDS[self.data[position]], 1))
        return self.grow(items, position)

    def append(self, position: int) -> int:
        return self.grow(self.take(1), position)

    def setitem(self, position: int) -> int:
        return self.grow(self.take(2), position)

    def extend(self, position: int) -> int:
        return self.grow(self.take_to_mark()[0], position)

    def grow(self, items: list[Slot], position: int) -> int:
        """Put *items* into the container on top of the stack, which must be of the opcode's kind."""
        self.need(1)
        kind = _KINDS[self.data[position]]
        target = self.stack[-1]
        if not isinstance(target, Container) or target.kind is not kind or not target.open:
            raise BadRequest(f"the request adds to what is no {kind.__name__}, or contains itself")
        if kind is not list:
            self.hash_all(items if kind is set else items[::2])
        depth = max(target.entry & DEPTH, self.depth_around(items))
        target.entry = target.entry & ~DEPTH | depth
        target.size = position + 1 + self.shared - (target.entry >> SHIFT)
        return position + 1


#: By opcode: the kind of container that it makes or adds to.
_KINDS: dict[int, type] = {
    code: kind
    for kind, codes in (
        (list, pickle.EMPTY_LIST + pickle.LIST + pickle.APPEND + pickle.APPENDS),
        (dict, pickle.EMPTY_DICT + pickle.DICT + pickle.SETITEM + pickle.SETITEMS),
        (set, pickle.EMPTY_SET + pickle.ADDITEMS),
    )
    for code in codes
}
_ATOMS = {
    pickle.NONE: 1,
    pickle.NEWTRUE: 1,
    pickle.NEWFALSE: 1,
    pickle.BININT1: 2,
    pickle.BININT2: 3,
    pickle.BININT: 5,
    pickle.BINFLOAT: 9,
}
#: Strings and bytes whose length is one byte.
_SHORT = pickle.SHORT_BINUNICODE + pickle.SHORT_BINBYTES
_ATOM_WIDTHS = bytes(_ATOMS.get(bytes([code]), 0) for code in range(256))

_STEPS_OF: dict[bytes, Callable[[_Machine, int], int]] = {
    pickle.PROTO: _Machine.protocol,
    pickle.FRAME: _Machine.frame,
    pickle.STOP: _Machine.stop,
    pickle.INT: _Machine.number_line,
    pickle.LONG: _Machine.number_line,
    pickle.LONG1: _Machine.long1,
    pickle.LONG4: _Machine.long4,
    pickle.FLOAT: _Machine.float_line,
    pickle.UNICODE: _Machine.text_line,
    pickle.SHORT_BINUNICODE: _Machine.text1,
    pickle.BINUNICODE: _Machine.text4,
    pickle.BINUNICODE8: _Machine.text8,
    pickle.SHORT_BINBYTES: _Machine.sized1,
    pickle.BINBYTES: _Machine.sized4,
    pickle.BINBYTES8: _Machine.sized8,
    pickle.BYTEARRAY8: _Machine.sized8,
    pickle.MEMOIZE: _Machine.memoize,
    pickle.PUT: _Machine.put,
    pickle.BINPUT: _Machine.binput,
    pickle.LONG_BINPUT: _Machine.long_binput,
    pickle.GET: _Machine.get,
    pickle.BINGET: _Machine.binget,
    pickle.LONG_BINGET: _Machine.long_binget,
    pickle.MARK: _Machine.mark,
    pickle.EMPTY_TUPLE: _Machine.empty_tuple,
    pickle.TUPLE1: _Machine.short_tuple,
    pickle.TUPLE2: _Machine.short_tuple,
    pickle.TUPLE3: _Machine.short_tuple,
    pickle.TUPLE: _Machine.to_tuple,
    pickle.EMPTY_LIST: _Machine.empty,
    pickle.EMPTY_DICT: _Machine.empty,
    pickle.EMPTY_SET: _Machine.empty,
    pickle.LIST: _Machine.full,
    pickle.DICT: _Machine.full,
    pickle.FROZENSET: _Machine.to_frozenset,
    pickle.APPEND: _Machine.append,
    pickle.APPENDS: _Machine.extend,
    pickle.SETITEM: _Machine.setitem,
    pickle.SETITEMS: _Machine.extend,
    pickle.ADDITEMS: _Machine.extend,
}
_STEPS = tuple(_STEPS_OF.get(bytes([code]), _Machine.refuse) for code in range(256))
_NAMES = {
    value[0]: name
    for name, value in vars(pickle).items()
    if isinstance(value, bytes) and len(value) == 1 and name.isupper()
}
