"""A bucket of keys in memory, with the faults of a real one: elections, lost answers, a cut network.

Its time is that of the event loop, mostly a virtual one.
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass

from svc.server.journal.jetstream.candidacy import Changed, Entry
from svc.server.journal.jetstream.lead_timing import Timing
from svc.server.journal.jetstream.log import Unanswered


@dataclass
class _Kept:
    value: bytes
    revision: int
    since: float


class KeyModel:
    """The servers' side."""

    def __init__(self, timing: Timing | None = None, *, rate: float = 1.0) -> None:
        """Keep keys for the TTL of *timing*, by a clock of this *rate*."""
        self.timing = timing or Timing()
        self._keys: dict[str, _Kept] = {}
        self._rate = rate
        self._revision = 0
        #: Whether the servers elect a leader: nothing is read or written.
        self.electing = False

    def read(self, key: str) -> _Kept | None:
        kept = self._keys.get(key)
        if kept is not None and (self._now() - kept.since) * self._rate >= self.timing.ttl:
            del self._keys[key]
            return None
        return kept

    def write(self, key: str, value: bytes, expected: int | None) -> int:
        kept = self.read(key)
        if expected is not None and expected != (kept.revision if kept else 0):
            raise Changed
        self._revision += 1
        self._keys[key] = _Kept(value, self._revision, self._now())
        return self._revision

    def names(self, prefix: str) -> list[str]:
        return [key for key in list(self._keys) if key.startswith(prefix) and self.read(key) is not None]

    def remake(self) -> None:
        """Remove the bucket and make it again, before anybody has noticed: it is empty."""
        self._keys.clear()
        self._revision = 0

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


class ModelBucket:
    """One manager's connection to a `KeyModel`; it implements `KeyBucket`."""

    def __init__(self, model: KeyModel, rng: random.Random | None = None, *, slowest: float = 0.02) -> None:
        """Answer after up to *slowest* seconds."""
        self._model = model
        self._rng = rng or random.Random(0)
        self._slowest = slowest
        #: Nothing reaches the servers, as if the network were cut.
        self.cut_off = False
        #: The share of requests whose answer is lost although they were done.
        self.lost = 0.0
        self.servers_left = 0

    async def get(self, key: str) -> Entry | None:
        await self._reach(read=True)
        kept = self._model.read(key)
        await self._answer()
        return None if kept is None else Entry(kept.value, kept.revision)

    async def put(self, key: str, value: bytes, *, expected: int | None = None) -> int:
        await self._reach()
        revision = self._model.write(key, value, expected)
        await self._answer()
        return revision

    async def names(self, prefix: str) -> list[str]:
        await self._reach(read=True)
        found = self._model.names(prefix)
        await self._answer()
        return found

    async def leave_server(self) -> None:
        self.servers_left += 1

    async def _reach(self, *, read: bool = False) -> None:
        """Travel to the servers: in an election a write is refused at once, and a read has no answer."""
        await asyncio.sleep(self._rng.uniform(0, self._slowest / 2))
        if self._model.electing and not read:
            raise Unanswered("nobody leads")
        if self._model.electing or self.cut_off:
            await self._silence()

    async def _answer(self) -> None:
        if self.cut_off or self._rng.random() < self.lost:
            await self._silence()
        await asyncio.sleep(self._rng.uniform(0, self._slowest / 2))

    async def _silence(self) -> None:
        await asyncio.sleep(self._model.timing.answer_within)
        raise Unanswered("no answer in time")
