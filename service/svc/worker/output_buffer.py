"""The output of attempts on its way to the manager: bounded, and whole at its beginning and at its end.

Each piece has its offset in the stream. So a reader sees how much is missing between two pieces.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final

from svc.domain.commands import Output
from svc.domain.field_bounds import OUTPUT_PIECES_MAX
from svc.domain.job import OutputPiece, OutputStream, job_id
from svc.worker.output_marks import AttemptName

#: Bytes of one piece, and of the pieces in one request.
PIECE_BYTES: Final = 64 * 1024
FRAME_BYTES: Final = 512 * 1024
#: Pieces of ended attempts in one request, which leaves room for those of the attempts that run.
_FRAME_PIECES: Final = OUTPUT_PIECES_MAX // 2
#: Seconds between two pieces of a stream that writes more than can be kept.
_FLOOD_SECONDS: Final = 2.0
#: Bytes of ended attempts that wait for a manager that is away; the oldest are dropped beyond that.
_ENDED_BYTES: Final = 16 * 1024 * 1024
#: Bytes of running attempts that wait; beyond that, the output of one waits as if it had ended.
_RUNNING_BYTES: Final = 64 * 1024 * 1024
#: Pieces of ended attempts that wait, marks of dropped ones included.
_ENDED_PIECES: Final = 10_000


class StreamBuffer:
    """The output of one attempt on one stream that is not sent yet.

    Args:
        name: the attempt.
        stream: stdout or stderr.
        keep: bytes that are kept of the beginning, and of the end.
    """

    def __init__(self, name: AttemptName, stream: OutputStream, keep: int) -> None:
        self.name = name
        self._stream = stream
        self._keep = keep
        self._written = 0
        self._head_sent = 0
        self._head = bytearray()
        self._tail = bytearray()
        self._flooded = False
        self._next = 0.0

    def add(self, data: bytes) -> None:
        """Add *data*; what does not fit is dropped between the beginning and the end."""
        room = max(0, self._keep - self._written)
        self._head += data[:room]
        self._tail += data[room:]
        self._written += len(data)
        if len(self._tail) > 2 * self._keep:
            del self._tail[: -self._keep]
            self._flooded = True

    @property
    def held(self) -> int:
        """Bytes that are not sent yet."""
        return len(self._head) + len(self._tail)

    def take(self, now: float, *, ended: bool = False) -> list[OutputPiece]:
        """Return all output that is not sent yet; nothing if it comes too fast, unless it has *ended*."""
        if not (self._head or self._tail) or (now < self._next and not ended):
            return []
        pieces = self._pieces(self._head_sent, self._head)
        self._head_sent += len(self._head)
        pieces += self._pieces(self._written - len(self._tail), self._tail)
        self._next = now + _FLOOD_SECONDS if self._flooded else 0.0
        self._flooded = False
        self._head, self._tail = bytearray(), bytearray()
        return pieces

    def _pieces(self, offset: int, data: bytearray) -> list[OutputPiece]:
        job, attempt = job_id(self.name.origin, self.name.number), self.name.attempt
        return [
            OutputPiece(job, attempt, self._stream, offset + at, bytes(data[at : at + PIECE_BYTES]))
            for at in range(0, len(data), PIECE_BYTES)
        ]


class OutputBuffer:
    """The output of a worker's attempts that is not sent yet. Its owner locks it.

    Attributes:
        dropped: bytes that were dropped because the manager was away.
    """

    def __init__(self, keep: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Keep *keep* bytes of the beginning and of the end of each stream."""
        self.dropped = 0
        self._keep = keep
        self._clock = clock
        self._running: dict[StreamBuffer, None] = {}
        self._running_bytes = 0
        self._ended: deque[OutputPiece] = deque()
        self._ended_bytes = 0

    @property
    def waiting(self) -> bool:
        """Whether there is anything to send, now or later."""
        return bool(self._ended or self._running)

    def begin(
        self, name: AttemptName, stream: OutputStream, last: StreamBuffer | None = None
    ) -> StreamBuffer:
        """Return a buffer for a stream of an attempt; the stream goes on if *last*, which ended, has it."""
        buffer = last if last is not None and last.name == name else StreamBuffer(name, stream, self._keep)
        self._running[buffer] = None
        return buffer

    def add(self, buffer: StreamBuffer, data: bytes) -> None:
        """Add *data* to the output of *buffer*."""
        before = buffer.held
        buffer.add(data)
        self._running_bytes += buffer.held - before
        if self._running_bytes > _RUNNING_BYTES:
            self._set_aside(buffer)

    def end(self, buffer: StreamBuffer) -> None:
        """Note that there will be no more output for *buffer*."""
        self._running.pop(buffer, None)
        self._set_aside(buffer)

    def _set_aside(self, buffer: StreamBuffer) -> None:
        """Let the output of *buffer* wait with that of ended attempts, the oldest of which is dropped."""
        self._running_bytes -= buffer.held
        for piece in buffer.take(self._clock(), ended=True):
            self._ended.append(piece)
            self._ended_bytes += len(piece.data)
        self._bound()

    def take(self) -> Output | None:
        """Return the next pieces for the manager, those of ended attempts first; None if there are none."""
        pieces: list[OutputPiece] = []
        size = 0
        while self._ended and size < FRAME_BYTES and len(pieces) < _FRAME_PIECES:
            piece = self._ended.popleft()
            pieces.append(piece)
            size += len(piece.data)
            self._ended_bytes -= len(piece.data)
        now = self._clock()
        for buffer in list(self._running):
            if size >= FRAME_BYTES or len(pieces) >= _FRAME_PIECES:
                break
            held = buffer.held
            found = buffer.take(now)
            if found:
                self._running_bytes -= held
                # To the end of the order, so that each has its turn.
                self._running[buffer] = self._running.pop(buffer)
                pieces += found
                size += sum(len(piece.data) for piece in found)
        return Output(pieces, self._keep) if pieces else None

    def _bound(self) -> None:
        """Drop the oldest output of ended attempts; an empty piece at its end tells that it is missing."""
        marks: list[OutputPiece] = []
        while self._ended_bytes > _ENDED_BYTES:
            piece = self._ended.popleft()
            self._ended_bytes -= len(piece.data)
            self.dropped += len(piece.data)
            mark = OutputPiece(piece.id, piece.attempt, piece.stream, piece.offset + len(piece.data), b"")
            if marks and _stream_of(marks[-1]) == _stream_of(mark):
                marks.pop()
            marks.append(mark)
        self._ended.extendleft(reversed(marks))
        while len(self._ended) > _ENDED_PIECES:
            piece = self._ended.popleft()
            self._ended_bytes -= len(piece.data)
            self.dropped += len(piece.data)


def _stream_of(piece: OutputPiece) -> tuple[str, int, int]:
    return piece.id, piece.attempt, piece.stream
