"""Finds jobs by id, and reads outcomes in the order in which they were recorded.

An *origin* is the random name that a client gives to a series of its jobs. Together with the job's number it
is the job's id. That makes a submit idempotent: a number that the origin already has is the same job.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from operator import attrgetter

import msgspec

from svc.domain.chunk import Chunk
from svc.domain.job import Terms
from svc.domain.tables import HASHED_PARTS, Table, by_hash

#: Separate ranges of forgotten numbers that are known of one origin; a refused submit leaves a gap in them.
FORGOTTEN_RANGES_MAX = 256
#: Entries about forgotten jobs that are removed at a time.
DROPPED_MAX = 10_000
#: Chunks of an origin in one list. To add or remove one moves all behind it: 0.3 ms if they are a million.
BLOCK_CHUNKS = 4096
_first = attrgetter("first")
#: Parts of one event that a cursor can distinguish.
PARTS = 1 << 24


class Completion(msgspec.Struct, frozen=True):
    """Consecutive jobs from number `first` on, ended by part *part* of event *sequence*."""

    sequence: int
    part: int
    first: int
    jobs: int

    @property
    def cursor(self) -> int:
        """The cursor that reads on after this entry."""
        return self.sequence * PARTS + self.part + 1


#: The numbers of an entry.
_NUMBERS = len(Completion.__struct_fields__)


class Completions:
    """The jobs that ended, in order: four numbers an entry. A cursor stays valid over a restart."""

    __slots__ = ("_entries", "_start")

    def __init__(self) -> None:
        """Start with none."""
        #: The numbers of each entry, one after the other.
        self._entries = array("Q")
        #: Leading entries that are forgotten and not yet removed.
        self._start = 0

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self._entries) // _NUMBERS - self._start

    @property
    def newest(self) -> int:
        """The cursor after the last entry, or 0 if there is none."""
        return Completion(*self._entries[-_NUMBERS:]).cursor if self._entries else 0

    def append(self, sequence: int, part: int, first: int, count: int) -> None:
        """Add an entry, which must be later in (sequence, part) than all others."""
        self._entries.extend((sequence, part, first, count))

    def after(self, cursor: int) -> Iterator[Completion]:
        """Yield the entries after *cursor* (0: all of them); none may be added meanwhile."""
        entries = self._entries
        places = range(_NUMBERS * self._start, len(entries), _NUMBERS)
        sequence, parts = divmod(max(0, cursor), PARTS)
        for place in places[bisect_left(places, sequence, key=entries.__getitem__) :]:
            entry = Completion(*entries[place : place + _NUMBERS])
            if entry.part >= parts or entry.sequence > sequence:
                yield entry

    def drop_below(self, number: int) -> None:
        """Forget leading entries about jobs below *number*; if they are many, the next call does the rest."""
        last = min(len(self._entries) // _NUMBERS, self._start + DROPPED_MAX)
        while self._start < last and self._entries[_NUMBERS * self._start + 2] < number:
            self._start += 1
        # Removing a few entries at the front of many moves all the others, so wait for half of them.
        if self._start > len(self):
            del self._entries[: _NUMBERS * self._start]
            self._start = 0


#: The completions of an origin none of whose kept jobs has ended. Entries are never added to it.
_NO_COMPLETIONS = Completions()


def _first_of(block: list[Chunk]) -> int:
    return block[0].first


#: The earlier blocks of an origin that has few chunks. None are ever added to it.
_NO_BLOCKS: list[list[Chunk]] = []


class Origin:
    """The jobs of one origin: its chunks in the order of their numbers, and its completions.

    Attributes:
        blocks: chunks in the order of their numbers, in lists of which none is empty.
        chunks: those behind all of these; empty only if there are no others.
    """

    __slots__ = (
        "blocks",
        "chunks",
        "completions",
        "emptied_at",
        "floor",
        "forgotten",
        "forgotten_by",
        "name",
    )

    def __init__(self, name: str) -> None:
        """Start with no jobs."""
        self.name = name
        self.chunks: list[Chunk] = []
        # Most origins have few jobs, and there may be very many origins: each part is made when it is needed.
        self.blocks = _NO_BLOCKS
        self.completions = _NO_COMPLETIONS
        #: Numbers of accepted jobs that are forgotten, as ranges [first, stop) in order.
        self.forgotten: list[tuple[int, int]] = []
        #: Numbers below this one are used up; it is not known any more which of them were accepted.
        self.floor = 0
        #: The time at which it lost its last job, while it waits to be forgotten itself.
        self.emptied_at: float | None = None
        #: Sequence numbers of the events that record the forgotten numbers.
        self.forgotten_by: list[int] = []

    def find(self, number: int) -> Chunk | None:
        """Return the chunk that has job *number*, or None."""
        chunks = self.chunks
        if chunks and chunks[-1].first <= number:
            chunk = chunks[-1]
        else:
            block = self._block(number)
            index = bisect_right(block, number, key=_first) - 1
            if index < 0:
                return None
            chunk = block[index]
        return chunk if number < chunk.first + chunk.count else None

    def count_known(self, first: int, count: int) -> int:
        """Return how many of the jobs `first` … `first + count - 1` were accepted before."""
        forgotten, chunks = self.forgotten, self.chunks
        if (not forgotten or forgotten[-1][1] <= first) and (
            not chunks or chunks[-1].first + chunks[-1].count <= first
        ):
            return 0  # the usual case: all numbers that were ever accepted are below
        stop = first + count
        known = sum(max(0, min(stop, high) - max(first, low)) for low, high in forgotten)
        return known + sum(high - low for _, low, high in self.overlaps(first, stop))

    def overlaps(self, first: int, stop: int) -> Iterator[tuple[Chunk, int, int]]:
        """Yield (chunk, low, high) for each chunk that has jobs in [first, stop): those in [low, high)."""
        begin = max(0, bisect_right(self.blocks, first, key=_first_of) - 1)
        for block in (*self.blocks[begin:], self.chunks):
            for index in range(max(0, bisect_right(block, first, key=_first) - 1), len(block)):
                chunk = block[index]
                if chunk.first >= stop:
                    return
                low, high = max(first, chunk.first), min(stop, chunk.first + chunk.count)
                if low < high:
                    yield chunk, low, high

    def completed(self, sequence: int, part: int, first: int, count: int) -> None:
        """Note that *count* jobs from number *first* on were ended by part *part* of event *sequence*."""
        if self.completions is _NO_COMPLETIONS:
            self.completions = Completions()
        self.completions.append(sequence, part, first, count)

    def add(self, chunk: Chunk) -> None:
        """Add a chunk."""
        block = self.chunks
        if not block or block[-1].first < chunk.first:
            block.append(chunk)
        else:
            block = self._block(chunk.first)
            insort(block, chunk, key=_first)
        if len(block) == 2 * BLOCK_CHUNKS:
            self._split(block)

    def remove(self, chunk: Chunk) -> None:
        """Forget a chunk; its numbers stay known as accepted."""
        block = self._block(chunk.first)
        del block[bisect_left(block, chunk.first, key=_first)]
        if not block:
            self._drop(block)
        self.note_forgotten([(chunk.first, chunk.first + chunk.count)])
        if self.chunks:
            self.completions.drop_below(_first_of(self.blocks[0] if self.blocks else self.chunks))
        else:
            self.completions = _NO_COMPLETIONS

    def _block(self, number: int) -> list[Chunk]:
        """Return the list that has the chunk of job *number*, if there is one."""
        if not self.blocks or self.chunks[0].first <= number:
            return self.chunks
        return self.blocks[max(0, bisect_right(self.blocks, number, key=_first_of) - 1)]

    def _split(self, block: list[Chunk]) -> None:
        later = block[BLOCK_CHUNKS:]
        del block[BLOCK_CHUNKS:]
        if block is self.chunks:
            self.blocks = [*self.blocks, block]
            self.chunks = later
        else:
            insort(self.blocks, later, key=_first_of)

    def _drop(self, block: list[Chunk]) -> None:
        """Drop an empty list."""
        if block is not self.chunks:
            self.blocks = [each for each in self.blocks if each is not block]
        elif self.blocks:
            self.chunks = self.blocks.pop()

    def note_forgotten(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Note that the jobs in *ranges* were accepted once."""
        if self.forgotten and len(ranges) == 1 and ranges[0][0] == self.forgotten[-1][1]:
            # This needs a new list, because an event may hold the old one.
            self.forgotten = [*self.forgotten[:-1], (self.forgotten[-1][0], ranges[0][1])]
            return
        merged: list[tuple[int, int]] = []
        for low, high in sorted((*self.forgotten, *ranges)):
            if merged and low <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
            else:
                merged.append((low, high))
        if len(merged) > FORGOTTEN_RANGES_MAX:
            merged = merged[-FORGOTTEN_RANGES_MAX:]
            self.floor = max(self.floor, merged[0][0])
        self.forgotten = merged


class Origins:
    """All known origins."""

    def __init__(self) -> None:
        """Start with none."""
        self._origins: Table[str, Origin] = Table(by_hash)
        #: The number of the next job that a plain client puts in this life of the manager.
        self.next_put = 0

    def __len__(self) -> int:
        """Return the number of known origins."""
        return len(self._origins)

    def __iter__(self) -> Iterator[Origin]:
        """Iterate over all origins."""
        return self._origins.values()

    def get(self, name: str) -> Origin | None:
        """Return a known origin, or None."""
        return self._origins.parts[hash(name) % HASHED_PARTS].get(name)

    def make(self, name: str) -> Origin:
        """Return the origin *name*; make it if it is not known."""
        part = self._origins.parts[hash(name) % HASHED_PARTS]
        found = part.get(name)
        if found is None:
            found = part[name] = Origin(name)
        return found

    def discard(self, name: str) -> None:
        """Forget an origin altogether."""
        self._origins.pop(name)

    def find(self, name: str, number: int) -> tuple[Chunk, int] | None:
        """Return (chunk, index) of a job, or None if it is not known, or was purged."""
        origin = self.get(name)
        if origin is None:
            return None
        chunk = origin.find(number)
        if chunk is None or (chunk.purges and chunk.is_purged(number - chunk.first)):
            return None
        return chunk, number - chunk.first

    def joined_by(self, name: str, first: int, count: int, terms: Terms) -> Chunk | None:
        """Return the chunk that *count* new jobs from number *first* on join, or None if they begin one."""
        # Not simply the newest chunk: in a replay that one may be gone.
        place = self.find(name, first - 1)
        return place[0] if place is not None and place[0].may_take(first, count, terms) else None
