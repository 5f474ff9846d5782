"""Reads the output of a worker's consumers, in a thread of the supervisor, and passes it on.

A task that writes waits only for this thread. It never waits for the manager, and not for long for the reader
of the worker's own stdout and stderr: there, whole lines appear as if the tasks wrote them themselves.
"""

from __future__ import annotations

import array
import contextlib
import os
import select
import threading
import time
from collections.abc import Callable
from fcntl import ioctl
from multiprocessing.connection import Connection
from termios import FIONREAD
from typing import Final

import structlog

from svc.domain.commands import Output
from svc.domain.job import OutputStream
from svc.lines import LineWriter
from svc.worker.attempt_streams import AttemptStreams, Lines
from svc.worker.capture import CapturePipes
from svc.worker.output_buffer import OutputBuffer, StreamBuffer
from svc.worker.output_marks import (
    ALONE,
    BESIDE,
    ENDED,
    OWN_RECORD,
    OWN_TEXT,
    TEXT,
    AttemptName,
    Part,
    Splitter,
    attempt_named,
    owned,
)
from svc.worker.slot import Slot

#: Bytes that are read at once: what a pipe holds.
_READ_BYTES: Final = 64 * 1024
#: Reads of an ended consumer's pipe; a process that it left behind may go on writing.
_LAST_READS: Final = 4
#: Seconds between two looks for attempts that have ended without a mark behind their last output.
_LOOK_SECONDS: Final = 0.5


class OutputReader:
    """Reads the pipes of all consumers.

    Args:
        keep: bytes that are kept of the beginning and of the end of each stream of an attempt.
        news: called from the thread whenever there is output to send.
    """

    def __init__(self, keep: int, news: Callable[[], None]) -> None:
        self._buffer = OutputBuffer(keep)
        self._news = news
        self._lock = threading.Lock()
        self._streams: dict[int, _ConsumerStream] = {}
        #: Those of them that have output which waits for more, and the time of the next look at them.
        self._waiting: set[int] = set()
        self._look_at = 0.0
        self._epoll = select.epoll()
        self._wake_reader, self._wake_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._epoll.register(self._wake_reader, select.EPOLLIN)
        self._writers = {1: LineWriter(1), 2: LineWriter(2)}
        self._thread = threading.Thread(target=self._run, name="output", daemon=True)
        self._stopping = False

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def add(self, pipes: CapturePipes | None, slot: Slot) -> None:
        """Read the pipes of a consumer, which has *slot*, from now on."""
        if pipes is None:
            return
        with self._lock:
            for pipe, stream in ((pipes.stdout, OutputStream.STDOUT), (pipes.stderr, OutputStream.STDERR)):
                writer = self._writers[stream.value]
                splitter = Splitter(pipes.secret)
                self._streams[pipe.fileno()] = _ConsumerStream(
                    pipe, slot, stream, splitter, self._buffer, writer
                )
                self._epoll.register(pipe.fileno(), select.EPOLLIN)

    def remove(self, pipes: CapturePipes | None) -> None:
        """Read what an ended consumer has left in its pipes, and close them."""
        if pipes is None:
            return
        with self._lock:
            for pipe in (pipes.stdout, pipes.stderr):
                stream = self._streams.pop(pipe.fileno(), None)
                self._waiting.discard(pipe.fileno())
                if stream is not None:
                    with contextlib.suppress(OSError, ValueError):
                        self._epoll.unregister(pipe.fileno())
                    stream.finish()
        pipes.close()
        self._news()

    def take(self) -> Output | None:
        """Return the next pieces for the manager, or None. Thread-safe."""
        with self._lock:
            return self._buffer.take()

    @property
    def waiting(self) -> bool:
        """Whether there may be more to take later."""
        return self._buffer.waiting

    @property
    def dropped(self) -> int:
        """The bytes that were dropped because the manager was away."""
        return self._buffer.dropped

    def finish(self) -> None:
        """Read what there is in all pipes, and stop reading: the consumers have ended."""
        self._stopping = True
        os.write(self._wake_writer, b"!")
        if self._thread.ident is not None:
            self._thread.join()
        with self._lock:
            while self._streams:
                self._streams.popitem()[1].finish()
        self._epoll.close()
        os.close(self._wake_reader)
        os.close(self._wake_writer)

    def _run(self) -> None:
        while not self._stopping:
            ready = self._epoll.poll(self._patience())
            for descriptor, _ in ready:
                with self._lock:
                    self._read(descriptor)
            if self._waiting and time.monotonic() >= self._look_at:
                with self._lock:
                    self._look()
            self._news()
            self._tell_of_dropped()

    def _patience(self) -> float | None:
        return max(0.0, self._look_at - time.monotonic()) if self._waiting else None

    def _read(self, descriptor: int) -> None:
        stream = self._streams.get(descriptor)
        if stream is None:
            return
        if not stream.read():
            self._epoll.unregister(descriptor)
        if not stream.waiting:
            self._waiting.discard(descriptor)
        elif descriptor not in self._waiting:
            self._look_at = self._look_at if self._waiting else time.monotonic() + _LOOK_SECONDS
            self._waiting.add(descriptor)

    def _look(self) -> None:
        for descriptor in list(self._waiting):
            stream = self._streams[descriptor]
            stream.end_unmarked()
            if not stream.waiting:
                self._waiting.discard(descriptor)
        self._look_at = time.monotonic() + _LOOK_SECONDS

    def _tell_of_dropped(self) -> None:
        count = sum(writer.take_dropped() for writer in self._writers.values() if writer.dropped)
        if count:
            log = structlog.get_logger()
            log.warning("log_lines_dropped", count=count)


class _ConsumerStream:
    """One pipe of a consumer."""

    def __init__(
        self,
        pipe: Connection,
        slot: Slot,
        stream: OutputStream,
        splitter: Splitter,
        buffer: OutputBuffer,
        writer: LineWriter,
    ) -> None:
        self._descriptor = pipe.fileno()
        self._slot = slot
        self._stream = stream
        self._splitter = splitter
        self._buffer = buffer
        self._lines = Lines(writer)
        self._current: StreamBuffer | None = None
        #: The output of the attempt whose end came last; a process of it may write on until it is ended.
        self._last: StreamBuffer | None = None
        #: The attempts that run side by side, if any do; without them, plain output is of the one that runs.
        self._attempts: AttemptStreams | None = None

    def read(self) -> bool:
        """Read what there is; return False at the end of the pipe."""
        # The consumer needs the slot to begin another job: so all bytes that have no mark are of this one.
        with self._slot.held():
            try:
                data = os.read(self._descriptor, _READ_BYTES)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            running = self._running()
        self._take(self._splitter.split(data, more=len(data) == _READ_BYTES), running)
        return True

    @property
    def waiting(self) -> bool:
        """Whether output of an attempt waits for more output, or for a mark."""
        return self._attempts is None and (self._lines.waiting or self._splitter.waiting)

    def end_unmarked(self) -> None:
        """End the output, unless its job still runs: a consumer makes no mark behind output that was read."""
        with self._slot.held():
            running = self._running()
            if self._unread() or (running is not None and running == self._owner):
                return
        self._take(self._splitter.split(b"", more=False), self._owner)
        self._end()

    def finish(self) -> None:
        """Read the rest: the process has ended."""
        for _ in range(_LAST_READS):
            if not self.read():
                break
        self._take(self._splitter.split(b"", more=False), self._owner)
        self._switch(beside=False)

    def _running(self) -> AttemptName | None:
        look = self._slot.peek()
        return AttemptName(look.origin, look.number, look.attempt) if look.busy else None

    def _unread(self) -> int:
        unread = array.array("i", [0])
        ioctl(self._descriptor, FIONREAD, unread, True)
        return unread[0]

    @property
    def _owner(self) -> AttemptName | None:
        """The attempt of the last output, if it has not ended."""
        return None if self._current is None else self._current.name

    def _take(self, parts: list[Part], running: AttemptName | None) -> None:
        """Take *parts*; output without a mark behind it is of the attempt that is *running*."""
        for place, part in enumerate(parts):
            if part.kind in (BESIDE, ALONE):
                self._switch(beside=part.kind == BESIDE)
            elif self._attempts is not None:
                self._take_beside(self._attempts, part)
            elif part.kind == ENDED:
                self._end()
            else:
                self._keep(_owner(parts, place, running), part.content)
                if part.kind == TEXT:
                    self._lines.write(part.content)

    def _switch(self, *, beside: bool) -> None:
        self._end()
        if self._attempts is not None:
            self._attempts.end_all()
        self._attempts = AttemptStreams(self._buffer, self._stream, self._lines.writer) if beside else None

    def _take_beside(self, attempts: AttemptStreams, part: Part) -> None:
        if part.kind == TEXT:
            self._lines.write(part.content)
        elif part.kind == ENDED:
            attempts.end(attempt_named(part.content))
        elif part.kind in (OWN_TEXT, OWN_RECORD):
            attempts.add(*owned(part.content), passed_on=part.kind == OWN_TEXT)

    def _keep(self, name: AttemptName | None, data: bytes) -> None:
        if name != self._owner:
            self._end()
        if name is not None:
            self._current = self._current or self._buffer.begin(name, self._stream, self._last)
            self._buffer.add(self._current, data)

    def _end(self) -> None:
        if self._current is not None:
            self._buffer.end(self._current)
            self._last, self._current = self._current, None
        self._lines.end()


def _owner(parts: list[Part], place: int, running: AttemptName | None) -> AttemptName | None:
    """Return the attempt that the next mark names; without such a mark it is the one that is *running*."""
    for part in parts[place:]:
        if part.kind == ENDED:
            return attempt_named(part.content)
        if part.kind == BESIDE:
            return None  # what the jobs before have left behind has written it
    return running
