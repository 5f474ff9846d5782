"""The form of the small files beside the journal: fixed fields after a magic word, and a checksum."""

from __future__ import annotations

from struct import Struct
from typing import Any
from zlib import crc32

#: The form of the checksum, which follows the fields.
CHECK = Struct("<I")


def packed(form: Struct, *fields: object) -> bytes:
    """Return *fields*, of which the first is the magic word, with their checksum."""
    content = form.pack(*fields)
    return content + CHECK.pack(crc32(content))


def unpacked(form: Struct, magic: bytes, content: bytes) -> tuple[Any, ...] | None:
    """Return the fields after *magic* in *content*; None if they are damaged or those of another file."""
    fields, check = content[: form.size], content[form.size :]
    if len(fields) < form.size or check != CHECK.pack(crc32(fields)):
        return None
    found, *rest = form.unpack(fields)
    return tuple(rest) if found == magic else None
