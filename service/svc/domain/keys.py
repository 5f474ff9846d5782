"""Idempotency keys: the same key with the same task and arguments is the same job."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from itertools import chain

from svc.domain.chunk import Chunk

#: Bytes of the digest that distinguishes two jobs with the same key.
DIGEST_BYTES = 16
_PARTS = 256
_NO_DIGEST = bytes(DIGEST_BYTES)


class Keys:
    """The jobs that have a key, by key, as long as they are kept.

    A key refers only to the chunk of its job: the job's index is found in the chunk's column of keys.
    """

    def __init__(self) -> None:
        """Start with none."""
        # A table of a million keys takes 100 ms to grow; each of these parts takes less than 1 ms.
        self._parts: list[dict[str, Chunk]] = [{} for _ in range(_PARTS)]
        self._count = 0

    def __len__(self) -> int:
        """Return the number of known keys."""
        return self._count

    def __iter__(self) -> Iterator[str]:
        """Iterate over the keys."""
        return chain.from_iterable(self._parts)

    def find(self, key: str) -> tuple[Chunk, int] | None:
        """Return (chunk, index) of the job with *key*, or None if there is none."""
        chunk = self._part(key).get(key)
        if chunk is None or chunk.keys is None:
            return None
        return chunk, chunk.keys.index(key)

    def add(self, chunk: Chunk, start: int, bodies: list[bytes]) -> None:
        """Note the keys of the jobs of *chunk* from *start* on; *bodies* are their bodies."""
        if chunk.keys is None:
            return
        digests = chunk.digests if chunk.digests is not None else bytearray(DIGEST_BYTES * start)
        chunk.digests = digests
        keys, digest_of = chunk.keys[start:], _Digests(chunk.terms.task)
        if all(keys):
            digests += b"".join(map(digest_of, bodies))
        else:
            keyed = zip(keys, bodies, strict=True)
            digests += b"".join(digest_of(body) if key else _NO_DIGEST for key, body in keyed)
        parts = self._parts  # not by `_part`: a recovery comes here for each of a million keys
        for key in filter(None, keys):
            part = parts[hash(key) % _PARTS]
            before = len(part)
            part[key] = chunk
            self._count += len(part) - before

    def forget(self, chunk: Chunk) -> None:
        """Forget the keys of a chunk."""
        for key in filter(None, chunk.keys or ()):
            part = self._part(key)
            if part.get(key) is chunk:
                del part[key]
                self._count -= 1

    def _part(self, key: str) -> dict[str, Chunk]:
        return self._parts[hash(key) % _PARTS]


def digest_at(chunk: Chunk, index: int) -> bytes:
    """Return the `content_digest` of the job at *index*, which has a key."""
    return (
        b""
        if chunk.digests is None
        else bytes(chunk.digests[index * DIGEST_BYTES : (index + 1) * DIGEST_BYTES])
    )


def content_digest(task: str, body: bytes) -> bytes:
    """Return the digest that distinguishes jobs with the same key: of the task and the arguments."""
    return _Digests(task)(body)


class _Digests:
    """Makes the digests of jobs of one task."""

    __slots__ = ("_begun",)

    def __init__(self, task: str) -> None:
        self._begun = hashlib.blake2b(task.encode() + b"\0", digest_size=DIGEST_BYTES)

    def __call__(self, body: bytes) -> bytes:
        digest = self._begun.copy()
        digest.update(body)
        return digest.digest()
