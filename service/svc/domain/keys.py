"""Idempotency keys: the same key with the same task and arguments is the same job."""

from __future__ import annotations

from svc.domain.chunk import Chunk

_PARTS = 256


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

    def find(self, key: str) -> tuple[Chunk, int] | None:
        """Return (chunk, index) of the job with *key*, or None if there is none."""
        chunk = self._parts[hash(key) % _PARTS].get(key)
        return None if chunk is None or chunk.columns is None else (chunk, chunk.columns.keys.index(key))

    def add(self, chunk: Chunk, start: int) -> None:
        """Note the keys of the jobs of *chunk* from *start* on."""
        parts = self._parts
        for key in filter(None, chunk.columns.keys[start:] if chunk.columns is not None else ()):
            part = parts[hash(key) % _PARTS]
            before = len(part)
            part[key] = chunk
            self._count += len(part) - before

    def forget(self, chunk: Chunk) -> None:
        """Forget the keys of a chunk."""
        for key in filter(None, chunk.columns.keys if chunk.columns is not None else ()):
            part = self._parts[hash(key) % _PARTS]
            if part.get(key) is chunk:
                del part[key]
                self._count -= 1


def digest_at(chunk: Chunk, index: int) -> bytes:
    """Return the `content_digest` of the job at *index*, which has a key; or b""."""
    return b"" if chunk.columns is None else chunk.columns.digest_of(index)
