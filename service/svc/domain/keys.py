"""Idempotency keys: the same key with the same task and arguments is the same job."""

from __future__ import annotations

from svc.domain.chunk import Chunk
from svc.domain.tables import Table, by_hash


class Keys:
    """The jobs that have a key, by key, as long as they are kept.

    A key refers only to the chunk of its job: the job's index is found in the chunk's column of keys.
    """

    def __init__(self) -> None:
        """Start with none."""
        self._chunks: Table[str, Chunk] = Table(by_hash)
        self._count = 0  # as each submit with a key asks for it

    def __len__(self) -> int:
        """Return the number of known keys."""
        return self._count

    def find(self, key: str) -> tuple[Chunk, int] | None:
        """Return (chunk, index) of the job with *key*, or None if there is none."""
        chunk = self._chunks.get(key)
        if chunk is None or chunk.columns is None:
            return None
        index = chunk.columns.keys.index(key)
        while chunk.is_purged(index):  # a purged job has had the key before
            index = chunk.columns.keys.index(key, index + 1)
        return chunk, index

    def add(self, chunk: Chunk, start: int) -> None:
        """Note the keys of the jobs of *chunk* from *start* on."""
        parts = self._chunks.parts
        for key in filter(None, chunk.columns.keys[start:] if chunk.columns is not None else ()):
            part = parts[by_hash(key)]
            before = len(part)
            part[key] = chunk
            self._count += len(part) - before

    def forget(self, chunk: Chunk, start: int = 0, stop: int | None = None) -> None:
        """Forget the keys of the jobs of a chunk that are in [start, stop)."""
        for key in filter(None, chunk.columns.keys[start:stop] if chunk.columns is not None else ()):
            if self._chunks.get(key) is chunk:
                self._chunks.pop(key)
                self._count -= 1


def digest_at(chunk: Chunk, index: int) -> bytes:
    """Return the `content_digest` of the job at *index*, which has a key; or b""."""
    return b"" if chunk.columns is None else chunk.columns.digest_of(index)
