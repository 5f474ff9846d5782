"""Marks in the output of a consumer, however the bytes are cut."""

from __future__ import annotations

import random

from svc.worker.output_marks import (
    ATOMIC_BYTES,
    CONTENT_MAX,
    ENDED,
    RECORD,
    TEXT,
    AttemptName,
    Part,
    Splitter,
    attempt_named,
    mark,
    new_secret,
)


def joined(parts: list[Part]) -> list[Part]:
    """Return parts with neighbouring texts as one."""
    found: list[Part] = []
    for part in parts:
        if part.kind == TEXT and found and found[-1].kind == TEXT:
            found[-1] = Part(TEXT, found[-1].content + part.content)
        else:
            found.append(part)
    return found


def test_marks_are_found_in_any_bytes_however_they_are_cut():
    chance = random.Random(13)
    for _ in range(300):
        secret = new_secret()
        parts, stream = [], b""
        for _ in range(6):
            kind = chance.choice((TEXT, ENDED, RECORD))
            content = chance.choice((b"", b"\0", secret[:7], chance.randbytes(30), b"line\n"))
            if kind != TEXT:
                stream += mark(secret, kind, content)
                parts.append(Part(kind, content))
            elif content:
                stream += content
                parts.append(Part(TEXT, content))
        splitter, found = Splitter(secret), []
        while stream:
            size = chance.randrange(1, 25)
            found += splitter.split(stream[:size])
            stream = stream[size:]
        if rest := splitter.split(b"", more=False):
            found += rest
        assert joined(found) == joined(parts)


def test_a_mark_fits_into_one_write_whatever_it_carries():
    assert len(mark(new_secret(), RECORD, b"x" * 10_000)) == ATOMIC_BYTES
    longest = AttemptName("\U0001f600" * 240, 1 << 53, 1 << 53).encoded()
    assert len(longest) <= CONTENT_MAX
    assert attempt_named(longest) == AttemptName("\U0001f600" * 240, 1 << 53, 1 << 53)


def test_a_mark_without_a_name_names_nothing():
    assert attempt_named(b"\xff\xff") is None
    assert attempt_named(b"o\0-1\0x") is None
