"""The output of attempts: kept beside the journal, not in it, and bounded.

It is no part of what is accepted: a store may drop it, and always drops the oldest when it is full.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, NamedTuple, Protocol

from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.chunk import Chunk
from svc.domain.handlers import ITEM_BYTES, READ_BYTE_WORK, READ_WORK, USED_UP, Room
from svc.domain.job import OutputPiece, OutputStream
from svc.domain.job_records import NO_RECORD
from svc.domain.lifecycle import WAITING, JobState
from svc.domain.observer import Observer
from svc.domain.outcomes import place_of
from svc.domain.queue_state import QueueState

#: Bytes that all output takes at most, if no setting says otherwise.
OUTPUTS_BYTES: Final = 64 * 1024 * 1024
#: What a piece takes beside its data.
PIECE_OVERHEAD: Final = 200
#: Bytes and pieces of one answer.
ANSWER_BYTES: Final = 1024 * 1024
ANSWER_PIECES: Final = 2000
#: Pieces that one answer looks at, of the wanted stream or not: it takes a few milliseconds.
LOOKED_AT_PIECES: Final = 2 * ANSWER_PIECES
#: Pieces that are dropped for one command, about. If the room of so many is not enough, as they were very
#: small, the command's own are dropped too.
DROPPED_MAX: Final = 8192
#: Work for a piece that an answer has; see `domain.handlers`.
PIECE_WORK: Final = 2.0
#: Attempts with output that one answer names, and looks at.
ATTEMPTS_NAMED: Final = 100


class FoundPieces(NamedTuple):
    """Pieces that were found, the place of the last one, and whether there are more."""

    pieces: list[OutputPiece]
    cursor: int
    more: bool


class AnswerPart:
    """Gathers the pieces of one answer, in the order of their places."""

    def __init__(self, cursor: int) -> None:
        """Begin after place *cursor*."""
        self._pieces: list[OutputPiece] = []
        self._cursor = cursor
        self._looked_at = self._size = 0
        self._more = False

    def add(self, place: int, piece: OutputPiece | None) -> bool:
        """Add the next piece, or pass over one that is not wanted (None); return False if it does not fit."""
        size = 0 if piece is None else len(piece.data)
        pieces = self._pieces
        full = len(pieces) >= ANSWER_PIECES or (pieces and self._size + size > ANSWER_BYTES)
        if full or self._looked_at >= LOOKED_AT_PIECES:
            self._more = True
            return False
        self._looked_at += 1
        self._cursor = place
        if piece is not None:
            pieces.append(piece)
            self._size += size
        return True

    def found(self) -> FoundPieces:
        """Return what fitted."""
        return FoundPieces(self._pieces, self._cursor, self._more)


class DroppedPieces(NamedTuple):
    """Pieces that a store has dropped: how many, the bytes in them, and why.

    The reason is that the store is `full` and dropped the oldest, the disk or the memory is
    `scarce`, or there was a `fault` of the file.
    """

    pieces: int = 0
    size: int = 0
    reason: str = "full"


def all_of(pieces: list[OutputPiece], reason: str) -> DroppedPieces:
    """Return all *pieces* as dropped."""
    return DroppedPieces(len(pieces), sum(len(piece.data) for piece in pieces), reason)


class OutputStore(Protocol):
    """Keeps pieces of output, each under a place that grows; none of its methods raises.

    Attributes:
        limit: the bytes that they may take.
    """

    limit: int

    def add(self, pieces: list[OutputPiece], keep: int) -> DroppedPieces:
        """Keep pieces, unless they are kept already; return those that it has dropped.

        Of each stream of an attempt, *keep* bytes of the beginning and of the end stay.
        """

    def find(self, job: str, attempt: int, stream: int, cursor: int) -> FoundPieces:
        """Return pieces after *cursor*, in order; of all attempts or streams where the number is 0."""

    def attempts(self, job: str) -> list[int]:
        """Return the last attempts at a job that have output, in order."""

    def size(self) -> int:
        """Return the bytes that all pieces take."""

    def close(self) -> None:
        """Close the store."""


class OutputKeeper:
    """Answers the two commands about output, with a store."""

    def __init__(self, store: OutputStore, observer: Observer) -> None:
        """Keep output in *store*."""
        self._store = store
        self._observer = observer
        observer.measured("svc_output_limit_bytes", store.limit)
        observer.measured("svc_output_size_bytes", store.size())

    def take(self, command: c.Output, *, scarce: bool) -> r.Reply:
        """Keep the pieces of *command*; drop them if disk or memory is *scarce*."""
        pieces = command.pieces
        dropped = all_of(pieces, "scarce") if scarce else self._store.add(pieces, command.keep)
        self._count(pieces, dropped)
        return r.Done(len(pieces) - min(dropped.pieces, len(pieces)))

    def _count(self, pieces: list[OutputPiece], dropped: DroppedPieces) -> None:
        observer = self._observer
        for stream in OutputStream:
            size = sum(len(piece.data) for piece in pieces if piece.stream == stream)
            if size:
                observer.counted("svc_output_bytes_total", stream.name.lower(), by=size)
        if dropped.size:
            observer.counted("svc_output_dropped_bytes_total", dropped.reason, by=dropped.size)
        observer.measured("svc_output_size_bytes", self._store.size())

    def answer(self, command: c.Logs, state: QueueState, room: Room) -> r.Reply:
        """Return the output that *command* asks for; it takes from the *room* of its request."""
        if not room.left:
            return USED_UP
        attempts = self._store.attempts(command.id)
        place = place_of(state, command.id)
        if place is None and not attempts:
            return r.Refused("unknown_job", f"no job and no output of {command.id!r} is known")
        chunk, number = place if place is not None else (None, 0)
        word = "" if chunk is None else chunk.state(number).word
        attempt = command.attempt
        if not attempt and not command.cursor and attempts:
            attempt = attempts[-1]
        found = self._store.find(command.id, attempt, command.stream, command.cursor)
        size = sum(len(piece.data) for piece in found.pieces)
        work = READ_WORK + PIECE_WORK * len(found.pieces) + READ_BYTE_WORK * size
        room.take(ITEM_BYTES * (1 + len(found.pieces)) + size, work)
        made = max(attempts[-1] if attempts else 0, 0 if chunk is None else _made(chunk, number))
        return r.Logged(found.pieces, found.cursor, found.more, word, attempts, made)

    def close(self) -> None:
        """Close the store."""
        self._store.close()


def _made(chunk: Chunk, index: int) -> int:
    """Return the number of attempts at a job; one more for a cancelled job, which may have run."""
    state = chunk.state(index)
    has_one_more = state not in WAITING and state is not JobState.DEAD
    return chunk.records.get(index, NO_RECORD).ended + has_one_more


#: What a piece takes in memory beside its data, and a stream, with its attempt and job.
_PIECE_BYTES: Final = 350
_STREAM_BYTES: Final = 750


class MemoryOutputs:
    """Keeps output in memory."""

    def __init__(self, limit: int = OUTPUTS_BYTES) -> None:
        """Keep up to *limit* bytes."""
        self.limit = limit
        self._size = 0
        self._last = 0
        #: All pieces by place, oldest first; and those of each attempt, by job and attempt.
        #: To find the first key of a usual dict takes a look at each that was removed before it.
        self._pieces: OrderedDict[int, OutputPiece] = OrderedDict()
        self._attempts: dict[str, dict[int, dict[int, OutputPiece]]] = {}
        self._streams: dict[tuple[str, int, int], _StreamPlaces] = {}

    def add(self, pieces: list[OutputPiece], keep: int) -> DroppedPieces:
        """See `OutputStore.add`."""
        last = self._last
        for piece in pieces:
            name = piece.id, piece.attempt, piece.stream
            stream = self._streams.get(name)
            if stream is None:
                stream = self._streams[name] = _StreamPlaces(piece.offset)
                self._size += _STREAM_BYTES
            elif piece.offset in stream.offsets:
                continue
            else:
                stream.offsets.add(piece.offset)
            self._last += 1
            self._pieces[self._last] = piece
            self._attempts.setdefault(piece.id, {}).setdefault(piece.attempt, {})[self._last] = piece
            self._size += len(piece.data) + _PIECE_BYTES
            if piece.offset >= keep:
                stream.tail = stream.tail or deque()
                stream.tail.append(self._last)
            if stream.tail:
                self._trim(stream.tail, piece.offset + len(piece.data) - keep)
        count = size = 0
        while self._size > self.limit:
            few = count < DROPPED_MAX
            for at in [next(iter(self._pieces))] if few else self._places_after(last):
                count, size = count + 1, size + len(self._pieces[at].data)
                self._forget(at)
            if not few:
                break
        return DroppedPieces(count, size)

    def _places_after(self, last: int) -> list[int]:
        return [at for at in range(last + 1, self._last + 1) if at in self._pieces]

    def _trim(self, tail: deque[int], begin: int) -> None:
        """Forget the pieces of a stream between its beginning and *begin*, where its end begins."""
        while tail:
            piece = self._pieces.get(tail[0])
            if piece is not None and piece.offset + len(piece.data) > begin:
                return
            at = tail.popleft()
            if piece is not None:
                self._forget(at)

    def _forget(self, at: int) -> None:
        piece = self._pieces.pop(at)
        self._size -= len(piece.data) + _PIECE_BYTES
        attempts, name = self._attempts[piece.id], (piece.id, piece.attempt, piece.stream)
        del attempts[piece.attempt][at]
        offsets = self._streams[name].offsets
        offsets.discard(piece.offset)
        if not offsets:
            del self._streams[name]
            self._size -= _STREAM_BYTES
        if not attempts[piece.attempt]:
            del attempts[piece.attempt]
        if not attempts:
            del self._attempts[piece.id]

    def find(self, job: str, attempt: int, stream: int, cursor: int) -> FoundPieces:
        """See `OutputStore.find`."""
        attempts = self._attempts.get(job, {})
        chosen = [attempt] if attempt else self.attempts(job)
        places = [_after(attempts[each], cursor) for each in chosen if each in attempts]
        part = AnswerPart(cursor)
        for at in heapq.merge(*places):
            piece = self._pieces[at]
            if not part.add(at, piece if stream in (0, piece.stream) else None):
                break
        return part.found()

    def attempts(self, job: str) -> list[int]:
        """See `OutputStore.attempts`."""
        return sorted(self._attempts.get(job, {}))[-ATTEMPTS_NAMED:]

    def size(self) -> int:
        """See `OutputStore.size`."""
        return self._size

    def close(self) -> None:
        """See `OutputStore.close`."""


def _after(pieces: Iterable[int], cursor: int) -> Iterator[int]:
    """Return those of some places, which are in order, that are after *cursor*."""
    places = list(pieces)
    return islice(places, bisect_right(places, cursor), None)


class _StreamPlaces:
    """The places of one stream of an attempt: its offsets, and those pieces that are not its beginning."""

    __slots__ = ("offsets", "tail")

    def __init__(self, offset: int) -> None:
        self.offsets = {offset}
        #: Made with its first place: an empty one takes 600 bytes.
        self.tail: deque[int] | None = None
