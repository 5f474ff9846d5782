"""The live rows of each frame of the stream: which frames can be purged, and which are worth a rewrite.

Only a prefix of the stream is ever purged. A tombstone stands behind the row that it kills, so a purge never
takes a tombstone before its row, also if it comes late or from a manager that was deposed.
"""

from __future__ import annotations

import struct
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import mul
from typing import Final

from svc.server.journal.rows import runs_of

#: The stream may take this many times the bytes of the frames' live share, and so many bytes more, before old
#: frames are rewritten: each byte is then written at most about once more.
SPACE_FACTOR: Final = 2
SPACE_BYTES: Final = 16 * 1024 * 1024
#: Numbers that may be missing between two rows of one run: a bit for each more takes more than a new run.
_GAP: Final = 256
_DIGEST: Final = struct.Struct("!QQQ")
_MASK: Final = (1 << 64) - 1


@dataclass(slots=True, eq=False)
class FrameUse:
    """A frame, and its rows that are live.

    Attributes:
        frame: its number in this table, from 1.
        last: the sequence number of its last message; 0 while it is not in the stream.
        size: its bytes.
        rows: how many rows it had at first.
        live: how many of its rows are live.
        dead_by: the frame that took its last live row.
    """

    frame: int
    last: int = 0
    size: int = 0
    rows: int = 0
    live: int = 0
    dead_by: int = 0

    @property
    def live_bytes(self) -> float:
        """The share of its bytes that its live rows have."""
        return self.size * self.live / self.rows if self.rows else 0.0


@dataclass(slots=True, eq=False)
class _RowRun:
    """Rows of one frame with numbers near each other: bit `i` of *live* is set if row *low* + `i` is live.

    Row *low* is live.
    """

    low: int
    live: int
    use: FrameUse

    def numbers(self, bits: int) -> Sequence[int]:
        """Return the numbers of the rows whose *bits* are set."""
        skip = (bits & -bits).bit_length() - 1
        first, rest = self.low + skip, bits >> skip
        if not rest & (rest + 1):
            return range(first, first + rest.bit_length())
        # From the last digit on, as the first one stands for the highest number.
        return [first + place for place, bit in enumerate(reversed(f"{rest:b}")) if bit == "1"]

    def begin_with_live(self) -> int:
        """Let the run begin with its first live row, and return its number."""
        skip = (self.live & -self.live).bit_length() - 1
        if skip:
            self.low += skip
            self.live >>= skip
        return self.low


class FrameTable:
    """All frames of the stream, oldest first.

    Attributes:
        opened: how many frames there were so far.
        rows: how many rows are live.
        size: the bytes of all frames.
        live_bytes: the bytes of the live rows among them, as far as the frames' sizes tell.
    """

    def __init__(self) -> None:
        """Begin with an empty stream."""
        self.rows = self.size = self.opened = 0
        self.live_bytes = 0.0
        self._uses: deque[FrameUse] = deque()
        #: Runs with live rows, and the first number of each; both ascend, and no two runs overlap.
        self._runs: list[_RowRun] = []
        self._lows: list[int] = []
        self._high = -1
        #: The sums over the numbers of the live rows, and over their squares.
        self._sum = self._squares = 0

    def __contains__(self, number: int) -> bool:
        """Return whether a row is live."""
        place = bisect_right(self._lows, number) - 1
        return place >= 0 and bool(self._runs[place].live >> (number - self._lows[place]) & 1)

    def open(self) -> FrameUse:
        """Add the next frame at the end, for now without rows."""
        self.opened += 1
        use = FrameUse(self.opened, dead_by=self.opened)
        self._uses.append(use)
        return use

    def stored(self, use: FrameUse, last: int, size: int) -> None:
        """Note that a frame is in the stream, up to message *last*, with *size* bytes."""
        use.last = last
        use.size = size
        self.size += size
        self.live_bytes += use.live_bytes

    def add(self, use: FrameUse, numbers: Sequence[int]) -> None:
        """Add rows of the last frame; a row that an older frame has moves to it."""
        if not numbers:
            return
        numbers = sorted(numbers)
        pieces = runs_of(numbers)
        if numbers[0] <= self._high:
            self.forget(pieces, use.frame)
        for first, last in pieces:
            place = bisect_left(self._lows, first) if first <= self._high else len(self._lows)
            self._add_run(use, first, last, place)
        self._high = max(self._high, numbers[-1])
        use.rows += len(numbers)
        use.live += len(numbers)
        self._count(numbers, 1)

    def _add_run(self, use: FrameUse, first: int, last: int, place: int) -> None:
        """Add rows none of which is live: to the run before *place*, or as a new run there."""
        bits = (1 << (last - first + 1)) - 1
        if place:
            run = self._runs[place - 1]
            end = run.low + run.live.bit_length()
            if end > first:
                self._split(place - 1, first)
            elif run.use is use and first - end <= _GAP:
                run.live |= bits << (first - run.low)
                return
        self._runs.insert(place, _RowRun(first, bits, use))
        self._lows.insert(place, first)

    def _split(self, place: int, number: int) -> None:
        """Make two runs of one: the second one has the rows above *number*, which is none of them."""
        run = self._runs[place]
        width = number - run.low
        upper = _RowRun(number, run.live >> width, run.use)
        run.live &= (1 << width) - 1
        self._lows.insert(place + 1, upper.begin_with_live())
        self._runs.insert(place + 1, upper)

    def forget(self, runs: Iterable[tuple[int, int]], frame: int) -> None:
        """Drop the rows in *runs*, as (first, last) each, as *frame* says; unknown ones are passed over."""
        for first, last in runs:
            place = max(0, bisect_right(self._lows, first) - 1)
            while place < len(self._lows) and self._lows[place] <= last:
                run = self._runs[place]
                self._drop(run, max(first, run.low), min(last, run.low + run.live.bit_length() - 1), frame)
                if run.live:
                    self._lows[place] = run.begin_with_live()
                    place += 1
                else:
                    del self._runs[place], self._lows[place]

    def _drop(self, run: _RowRun, first: int, last: int, frame: int) -> None:
        """Drop the live rows of *run* from *first* to *last*."""
        gone = run.live & ((1 << max(0, last - first + 1)) - 1) << (first - run.low)
        if not gone:
            return
        numbers, use = run.numbers(gone), run.use
        run.live ^= gone
        use.live -= len(numbers)
        use.dead_by = frame
        self.live_bytes -= len(numbers) * use.size / use.rows
        self._count(numbers, -1)

    def _count(self, numbers: Sequence[int], sign: int) -> None:
        self.rows += sign * len(numbers)
        self._sum += sign * sum(numbers)
        self._squares += sign * sum(map(mul, numbers, numbers))

    def digest_bytes(self) -> bytes:
        """Return a digest of the live rows' numbers; two replicas with other rows have another one."""
        return _DIGEST.pack(self.rows, self._sum & _MASK, self._squares & _MASK)

    def purgeable(self, acknowledged: int) -> tuple[int, int]:
        """Drop the oldest frames without live rows, if the frames that took these are stored.

        *acknowledged* is the number of the last frame that is. The last frame stays: it has the term.

        Returns:
            The number of the last message of those frames, or 0 if there are none; and their bytes.
        """
        uses, last, size = self._uses, 0, 0
        while len(uses) > 1 and not uses[0].live:
            use = uses[0]
            if max(use.frame, use.dead_by) > acknowledged:
                break
            last, size = use.last, size + use.size
            uses.popleft()
        self.size -= size
        return last, size

    def worth_rewriting(self) -> bool:
        """Return whether so much of the stream is dead that the oldest live rows should be written again."""
        return self.size > SPACE_BYTES and self.size > SPACE_FACTOR * self.live_bytes + SPACE_BYTES

    def oldest(self, most: int) -> list[int]:
        """Return the live rows of the oldest frames, in about *most* bytes, at least those of one frame."""
        chosen: set[FrameUse] = set()
        room = float(most)
        for use in self._uses:
            if not use.last or (chosen and use.live_bytes > room):
                break
            room -= use.live_bytes
            if use.live:
                chosen.add(use)
        return [number for run in self._runs if run.use in chosen for number in run.numbers(run.live)]
