"""Checks that MessagePack is plain data within bounds before the manager decodes it for a stock client.

One byte can encode an empty map, which takes 64 bytes in memory: 16 MB of them took 2 GB and ten seconds.
Therefore one pass over the first bytes of the objects counts them, without creating any.
"""

from __future__ import annotations

from typing import Final

from svc.errors import CodecError
from svc.extensions import ARRAYS, MOMENT

#: The most objects in one body; each takes some 0.1 µs here, and as much to decode and to pickle.
OBJECTS_MAX: Final = 100_000
#: The most arrays and maps in one body; each takes some 0.4 µs here, and 64 bytes and more in memory.
CONTAINERS_MAX: Final = 25_000
#: An extension counts as so many of them: to scan it, call the hook and write a date as text takes 4 µs.
_EXTENSION_CONTAINERS: Final = 3
#: The most levels of containers within containers; as in pickles, see `pickle_stack`.
NESTING_MAX: Final = 64
#: The most map keys whose hashes are not seeded, so that an attacker can make them collide; as in pickles.
FORGEABLE_KEYS_MAX: Final = 512

_FIXED_WIDTHS = {
    **dict.fromkeys(range(0x80), 1),  # small integers
    **{0xA0 + size: 1 + size for size in range(0x20)},  # short strings
    **dict.fromkeys((0xC0, 0xC2, 0xC3), 1),  # nil, false, true
    **dict.fromkeys((0xCC, 0xD0), 2),
    **dict.fromkeys((0xCD, 0xD1), 3),
    **dict.fromkeys((0xCE, 0xD2), 5),
    **dict.fromkeys(range(0xE0, 0x100), 1),  # small negative integers
}
#: By first byte: the size of the object in bytes if the first byte determines it, else 0.
_WIDTHS = bytes(_FIXED_WIDTHS.get(head, 0) for head in range(256))
#: Strings of up to 255 bytes: the most frequent objects that are not in the table.
_STR8 = 0xD9
#: Numbers whose hash an attacker can choose, and their widths.
_FORGEABLE = {0xCA: 5, 0xCB: 9, 0xCF: 9, 0xD3: 9}
#: Strings and bytes with a count: the size of the count, and of the rest without the content.
_COUNTED = {0xC4: (1, 1), 0xC5: (2, 1), 0xC6: (4, 1), 0xDA: (2, 1), 0xDB: (4, 1)}
#: Extensions: the size of the count, and the size of the content if there is no count.
_EXTENSIONS = {0xC7: (1, 0), 0xC8: (2, 0), 0xC9: (4, 0)} | {0xD4 + power: (0, 2**power) for power in range(5)}
#: The type of extension, as a byte, that msgspec decodes without a hook: to an object of a class.
_TIMESTAMP = 0xFF
#: Arrays and maps with a count: the size of the count, and the number of objects for each item.
_CONTAINERS = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}


def examine(body: bytes) -> bytes:
    """Check that *body* is one complete object of MessagePack within bounds.

    Returns:
        *body* for a decoder with `data_of` as its hook: points in time have become extensions `MOMENT`.

    Raises:
        CodecError: it is not.
    """
    scan = _Scan(body)
    scan.run()
    if not scan.timestamps:
        return body
    recoded = bytearray(body)
    for position in scan.timestamps:
        recoded[position] = MOMENT
    return bytes(recoded)


class _Scan:
    """The scan of a body, with the number of objects left in each open container."""

    __slots__ = (
        "around", "body", "containers", "depth", "forgeable", "left", "objects", "of_map",
        "offset", "timestamps",
    )  # fmt: skip

    def __init__(self, body: bytes | memoryview) -> None:
        self.body = body
        self.offset = 0
        #: Where points in time have the type of their extension, counted from the start of the whole body.
        self.timestamps: list[int] = []
        self.left = 1
        self.of_map = False
        self.around: list[tuple[int, bool]] = []
        self.containers = self.forgeable = self.depth = 0
        self.objects = OBJECTS_MAX

    def run(self) -> None:
        """Scan all objects."""
        body, widths, position = self.body, _WIDTHS, 0
        try:
            while self.objects:
                self.objects -= 1
                head = body[position]
                width = widths[head]
                if width:
                    position += width
                    self.left -= 1
                elif head == _STR8:
                    position += 2 + body[position + 1]
                    self.left -= 1
                else:
                    position = self._step(position)
                while not self.left:
                    if not self.around:
                        self._finish(position)
                        return
                    self.left, self.of_map = self.around.pop()
        except IndexError:
            raise CodecError("the content ends within an object") from None
        raise CodecError(f"the content has more than {OBJECTS_MAX} objects")

    def _step(self, position: int) -> int:
        """Scan an object that is not in the table of widths; return the position after it.

        Of an array or a map, only the head is scanned.
        """
        head = self.body[position]
        is_key = self.of_map and not self.left % 2
        self.left -= 1
        if head in _FORGEABLE:
            self._note_forgeable(is_key)
            return position + _FORGEABLE[head]
        if head in _COUNTED:
            width, beside = _COUNTED[head]
            return position + beside + width + self._count(position, width)
        self._note_forgeable(is_key)
        if head in _EXTENSIONS:
            return self._extension(position, head)
        return self._open(position, head)

    def _extension(self, position: int, head: int) -> int:
        """Scan an extension; one with an array in it counts with all that is in there."""
        self._note_containers(_EXTENSION_CONTAINERS)
        width, size = _EXTENSIONS[head]
        start = position + 2 + width
        end: int = start + (self._count(position, width) if width else size)
        kind = self.body[start - 1]
        if kind == _TIMESTAMP:
            self.timestamps.append(self.offset + start - 1)
        if kind in ARRAYS:
            inner = _Scan(memoryview(self.body)[start:end])
            inner.offset, inner.timestamps = self.offset + start, self.timestamps
            inner.containers, inner.forgeable, inner.objects = self.containers, self.forgeable, self.objects
            inner.depth = self.depth + len(self.around) + 1
            if inner.depth >= NESTING_MAX:
                raise CodecError(f"the content nests deeper than {NESTING_MAX} levels")
            inner.run()
            self.containers, self.forgeable, self.objects = inner.containers, inner.forgeable, inner.objects
        return end

    def _open(self, position: int, head: int) -> int:
        """Enter an array or a map; return the position of its first object."""
        if 0x80 <= head < 0xA0:
            count, width, of_map = head & 0x0F, 0, head < 0x90
        elif head in _CONTAINERS:
            width, each = _CONTAINERS[head]
            count, of_map = self._count(position, width), each == 2
        else:
            raise CodecError(f"the content has the byte {head:#x}, which begins no object")
        self._note_containers(1)
        if len(self.around) + self.depth >= NESTING_MAX:
            raise CodecError(f"the content nests deeper than {NESTING_MAX} levels")
        self.around.append((self.left, self.of_map))
        self.left, self.of_map = count * (1 + of_map), of_map
        return position + 1 + width

    def _count(self, position: int, width: int) -> int:
        return int.from_bytes(self.body[position + 1 : position + 1 + width], "big")

    def _note_containers(self, count: int) -> None:
        self.containers += count
        if self.containers > CONTAINERS_MAX:
            kinds = "lists and mappings, and values of extension types"
            raise CodecError(f"the content has more than {CONTAINERS_MAX} {kinds}")

    def _note_forgeable(self, is_key: bool) -> None:
        self.forgeable += is_key
        if self.forgeable > FORGEABLE_KEYS_MAX:
            raise CodecError("the content has too many keys that are numbers or lists")

    def _finish(self, position: int) -> None:
        if position != len(self.body):
            raise CodecError("the content is not one whole object")
