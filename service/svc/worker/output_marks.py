"""Marks between the pieces of a consumer's output: they say to which attempt the bytes before them belong.

A pipe carries plain bytes, and a program that a task starts may write any. So a mark begins with a secret of
the consumer, which no output contains by chance. A mark is written in one piece, as it has at most PIPE_BUF
bytes.
"""

from __future__ import annotations

import secrets
from typing import Final, NamedTuple

from svc.domain.replies import Delivery

#: POSIX writes so many bytes into a pipe in one piece (PIPE_BUF on Linux).
ATOMIC_BYTES: Final = 4096
_SECRET_BYTES: Final = 16
_HEADER_BYTES: Final = _SECRET_BYTES + 3
#: The most bytes that a mark may carry.
CONTENT_MAX: Final = ATOMIC_BYTES - _HEADER_BYTES
#: The kinds of what a pipe carries: output; the name of the attempt that wrote what is before it; a record of
#: `logging`, which the worker's own log has already.
TEXT, ENDED, RECORD = b"", b"e", b"r"
#: While jobs run side by side: the begin and the end of that time; output, and a record, with the attempt
#: that wrote it. Plain output is the consumer's then, and ENDED is the end of an attempt.
BESIDE, ALONE, OWN_TEXT, OWN_RECORD = b"b", b"a", b"t", b"l"


class Part(NamedTuple):
    """A piece of output, or a mark."""

    kind: bytes
    content: bytes


class AttemptName(NamedTuple):
    """An attempt at a job, by the names under which its output is kept."""

    origin: str
    number: int
    attempt: int

    def encoded(self) -> bytes:
        """Return it as the content of a mark."""
        return f"{self.origin}\0{self.number}\0{self.attempt}".encode(errors="replace")

    @classmethod
    def of(cls, delivery: Delivery, number: int) -> AttemptName:
        """Return the name of the attempt at job *number* of a lease."""
        attempt = delivery.failures + delivery.crashes + delivery.interruptions + 1
        return cls(delivery.origin, number, attempt)


def own(name: bytes, data: bytes) -> bytes:
    """Return the content of a mark with the *data* of the attempt of that encoded *name*."""
    return len(name).to_bytes(2, "little") + name + data


def room_for(name: bytes) -> int:
    """Return the most bytes of data that `own` takes with *name*."""
    return CONTENT_MAX - 2 - len(name)


def owned(content: bytes) -> tuple[AttemptName | None, bytes]:
    """Return the attempt and the data in the content of a mark; no attempt if it names none."""
    begin = 2 + int.from_bytes(content[:2], "little")
    return attempt_named(content[2:begin]), content[begin:]


def attempt_named(content: bytes) -> AttemptName | None:
    """Return the attempt in the content of a mark; None if it names none."""
    origin, _, numbers = content.decode(errors="replace").partition("\0")
    number, _, attempt = numbers.partition("\0")
    return AttemptName(origin, int(number), int(attempt)) if number.isdigit() and attempt.isdigit() else None


def new_secret() -> bytes:
    """Return a secret for the marks of one consumer. It begins with a byte that texts do not have."""
    return b"\0" + secrets.token_bytes(_SECRET_BYTES - 1)


def mark(secret: bytes, kind: bytes, content: bytes) -> bytes:
    """Return a mark; content that is too long loses its end."""
    content = content[:CONTENT_MAX]
    return secret + kind + len(content).to_bytes(2, "little") + content


class Splitter:
    """Splits the bytes of a pipe into output and marks, however they were cut into pieces."""

    def __init__(self, secret: bytes) -> None:
        """Know marks by *secret*."""
        self._secret = secret
        self._rest = b""

    def split(self, data: bytes, *, more: bool = True) -> list[Part]:
        """Return the parts that are complete with *data*.

        Bytes at its end that may begin a mark wait for the next call. If there is no *more* in the pipe they
        are output: a mark comes in one piece.
        """
        data = self._rest + data
        parts: list[Part] = []
        begin = 0
        while (at := data.find(self._secret, begin)) >= 0:
            content = at + _HEADER_BYTES
            end = content + int.from_bytes(data[content - 2 : content], "little")
            if len(data) < content or len(data) < end:
                break
            parts += _texts(data[begin:at])
            parts.append(Part(data[content - 3 : content - 2], data[content:end]))
            begin = end
        begun = self._begun(data[begin:]) if more else 0
        held = at if at >= 0 else len(data) - begun
        parts += _texts(data[begin:held])
        self._rest = data[held:]
        return parts

    @property
    def waiting(self) -> bool:
        """Whether bytes wait for the next call."""
        return bool(self._rest)

    def _begun(self, data: bytes) -> int:
        """Return how many bytes at the end of *data* may be the beginning of a mark."""
        if self._secret[:1] not in data[1 - _SECRET_BYTES :]:
            return 0
        lengths = range(min(_SECRET_BYTES - 1, len(data)), 0, -1)
        return next((length for length in lengths if data.endswith(self._secret[:length])), 0)


def _texts(data: bytes) -> list[Part]:
    return [Part(TEXT, data)] if data else []
