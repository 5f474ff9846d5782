"""The output of attempts that run side by side in one consumer, as one of its two pipes brings it."""

from __future__ import annotations

from typing import Final

from svc.domain.job import OutputStream
from svc.lines import LineWriter
from svc.worker.output_buffer import OutputBuffer, StreamBuffer
from svc.worker.output_marks import ATOMIC_BYTES, AttemptName

#: Attempts that have ended and are remembered: a thread that one has left may still write for it.
_ENDED_MAX: Final = 1000


class Lines:
    """Writes whole lines to the worker's own stream, as many as can be written in one piece.

    Attributes:
        writer: the worker's own stream.
    """

    def __init__(self, writer: LineWriter) -> None:
        """Write to *writer*."""
        self.writer = writer
        self._line = b""

    @property
    def waiting(self) -> bool:
        """Whether there is the beginning of a line that waits for its end."""
        return bool(self._line)

    def write(self, data: bytes) -> None:
        """Write the lines that are complete with *data*."""
        data = self._line + data
        begin = 0
        while len(data) - begin >= ATOMIC_BYTES:
            cut = data.rfind(b"\n", begin, begin + ATOMIC_BYTES) + 1 or begin + ATOMIC_BYTES
            self.writer.write(data[begin:cut])
            begin = cut
        cut = data.rfind(b"\n", begin) + 1
        if cut:
            self.writer.write(data[begin:cut])
            begin = cut
        self._line = data[begin:]

    def end(self) -> None:
        """Write the rest, as a line."""
        if self._line:
            self.write(b"\n")


class AttemptStreams:
    """One stream of all attempts that run side by side.

    Args:
        buffer: has the output that is to be sent.
        stream: stdout or stderr.
        writer: the worker's own stream.
    """

    def __init__(self, buffer: OutputBuffer, stream: OutputStream, writer: LineWriter) -> None:
        self._buffer = buffer
        self._stream = stream
        self._writer = writer
        self._running: dict[AttemptName, tuple[StreamBuffer, Lines]] = {}
        self._ended: dict[AttemptName, None] = {}

    def add(self, name: AttemptName | None, data: bytes, *, passed_on: bool) -> None:
        """Take what an attempt has written; it goes to the worker's own stream too, if it is *passed_on*."""
        if name is None:
            return
        found = self._running.get(name)
        if found is None:
            if name in self._ended:
                return
            found = self._running[name] = self._buffer.begin(name, self._stream), Lines(self._writer)
        kept, lines = found
        self._buffer.add(kept, data)
        if passed_on:
            lines.write(data)

    def end(self, name: AttemptName | None) -> None:
        """Note that an attempt has ended."""
        found = None if name is None else self._running.pop(name, None)
        if name is None or found is None:
            return
        kept, lines = found
        self._buffer.end(kept)
        lines.end()
        self._ended[name] = None
        if len(self._ended) > _ENDED_MAX:
            del self._ended[next(iter(self._ended))]

    def end_all(self) -> None:
        """Note that none runs any more."""
        for name in list(self._running):
            self.end(name)
