"""The columns of a chunk: values that its jobs have each for itself. Most chunks have none.

A new value of a job that few jobs have, and that is not the same for all jobs of a chunk, belongs here.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from typing import TypeVar

from svc.domain.events import Submitted

#: Bytes of the digest that distinguishes two jobs with the same key.
DIGEST_BYTES = 16
_NO_DIGEST = bytes(DIGEST_BYTES)

_Value = TypeVar("_Value", str, bytes)


class Columns:
    """The keys, due times and headers of a chunk's jobs. A column is empty if no job has such a value.

    Only the chunk changes them, as it takes jobs in.

    Attributes:
        due: the due time that all jobs share; None if `dues` has them or the jobs were ready at once.
        dues: the due time of each job; 0 if it was ready at once.
        keys: the idempotency key of each job, or "".
        has_headers: whether a job has a header. The headers are in memory if the bodies are.
    """

    __slots__ = ("_digests", "_headers", "due", "dues", "has_headers", "keys")

    def __init__(self) -> None:
        """Start with empty columns."""
        self.due: float | None = None
        self.dues = array("d")
        self.keys: list[str] = []
        self._digests = bytearray()
        self.has_headers = False
        self._headers: list[bytes] = []

    def add(self, event: Submitted, before: int, *, in_memory: bool) -> None:
        """Take the values of new jobs; *before* are there, and all bodies are in memory if *in_memory*."""
        count = len(event.bodies)
        if event.due is not None and not before:
            self.due = event.due
        elif event.due is not None or event.dues or self.due is not None or self.dues:
            self._add_dues(event.dues or [event.due or 0.0] * count, before)
        keys = event.keys or ([event.key] if event.key else ())
        if keys or self.keys:
            self._digests += bytes(DIGEST_BYTES * (before - len(self.keys)))
            self._digests += _digests(event.terms.task, keys, event.bodies)
        _extend(self.keys, keys, before, count, "")
        self.has_headers = self.has_headers or bool(event.headers)
        if in_memory:
            _extend(self._headers, event.headers, before, count, b"")

    def _add_dues(self, dues: list[float], before: int) -> None:
        if not self.dues:
            self.dues = array("d", (self.due or 0.0,)) * before
            self.due = None
        self.dues.extend(dues)

    def due_of(self, index: int) -> float | None:
        """Return the due time of a job, or None if it was ready at once."""
        return (self.dues[index] or None) if self.dues else self.due

    def digest_of(self, index: int) -> bytes:
        """Return the digest of the content of a job that has a key."""
        return bytes(self._digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES])

    def headers(self, start: int, stop: int) -> list[bytes]:
        """Return the headers of the jobs in [start, stop); [] if they are not in memory."""
        return self._headers[start:stop]

    def drop_headers(self) -> None:
        """Leave the headers to the journal."""
        self._headers = []

    def set_back(self, late: Sequence[bool], by: float) -> None:
        """Move the due times of the jobs that are *late* back by *by* seconds."""
        if self.due is not None and late[0]:
            self.due -= by
        for index, due in enumerate(self.dues):
            if due and late[index]:
                self.dues[index] -= by


def _extend(column: list[_Value], values: Sequence[_Value], before: int, count: int, nothing: _Value) -> None:
    """Add the *values* of *count* jobs to a column; if it begins with them, *before* jobs have none."""
    if values or column:
        column.extend([nothing] * (before - len(column)))
        column.extend(values or [nothing] * count)


def content_digest(task: str, body: bytes) -> bytes:
    """Return the digest that distinguishes jobs with the same key: of the task and the arguments."""
    return _Digest(task)(body)


def _digests(task: str, keys: Sequence[str], bodies: Sequence[bytes]) -> bytes:
    """Return the digests of jobs one after the other, of zeros for those without a key."""
    if not keys:
        return _NO_DIGEST * len(bodies)
    digest_of = _Digest(task)
    if all(keys):
        return b"".join(map(digest_of, bodies))
    return b"".join(digest_of(body) if key else _NO_DIGEST for key, body in zip(keys, bodies, strict=True))


class _Digest:
    """Makes the digests of jobs of one task."""

    __slots__ = ("_begun",)

    def __init__(self, task: str) -> None:
        self._begun = hashlib.blake2b(task.encode() + b"\0", digest_size=DIGEST_BYTES)

    def __call__(self, body: bytes) -> bytes:
        digest = self._begun.copy()
        digest.update(body)
        return digest.digest()
