"""The output of tasks, in the consumer: descriptors 1 and 2 become pipes that the supervisor reads.

So it has all that a task writes there, by `print`, in C or in a program that it starts, and has it also if
the process is killed. The supervisor takes what it reads for that of the job that is in the slot. At the end
of a lease, of a job that is not short, and of each job that used `sys.stdout` or `sys.stderr`, output that it
has not read yet gets a mark. A job that writes nothing costs nothing.

While jobs run side by side, each write to `sys.stdout` and `sys.stderr`, and each record of `logging`, is a
mark with the attempt to which the code belongs. All other output is the consumer's then.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import io
import logging
import os
import re
import select
import sys
from collections.abc import Callable
from dataclasses import dataclass
from fcntl import ioctl
from functools import partial
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from termios import FIONREAD
from typing import Any, Final

import structlog

from svc.domain.job import OutputStream, job_id
from svc.domain.replies import Delivery
from svc.worker.context import TASK_LOGGER, running_here
from svc.worker.output_marks import (
    ALONE,
    ATOMIC_BYTES,
    BESIDE,
    CONTENT_MAX,
    ENDED,
    OWN_RECORD,
    OWN_TEXT,
    RECORD,
    AttemptName,
    mark,
    new_secret,
    own,
    room_for,
)
from svc.worker.slot import Slot

_STDOUT, _STDERR = 1, 2
_LINE_BUFFERED: Final = 1  # _IOLBF of glibc and musl
_RECORD_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_COLOR = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, slots=True)
class CapturePipes:
    """The ends of two pipes, both for writing or both for reading, and the secret of their marks."""

    stdout: Connection
    stderr: Connection
    secret: bytes

    def close(self) -> None:
        """Close both."""
        self.stdout.close()
        self.stderr.close()


def capture_pipes(context: BaseContext) -> tuple[CapturePipes, CapturePipes]:
    """Return the reading and the writing ends of two new pipes."""
    secret = new_secret()
    stdout, to_stdout = context.Pipe(duplex=False)
    stderr, to_stderr = context.Pipe(duplex=False)
    for pipe in (stdout, stderr):
        # Of these ends alone: an end for writing that does not block breaks `print`.
        os.set_blocking(pipe.fileno(), False)
    return CapturePipes(stdout, stderr, secret), CapturePipes(to_stdout, to_stderr, secret)


class Capture:
    """Captures nothing.

    Attributes:
        wrote: whether `sys.stdout` or `sys.stderr` was used since the last call of `settle`.
    """

    wrote = False

    def settle(self, delivery: Delivery, number: int) -> None:
        """Mark the output so far as that of job *number*; to be called before another job begins."""

    def begin_beside(self) -> None:
        """Tell the output of attempts apart by their context: several begin to run here at once."""

    def end_beside(self) -> None:
        """Do so no longer: all have ended."""

    def ended(self, delivery: Delivery, number: int) -> None:
        """Note that the attempt at job *number* has ended, of those that run here at once."""

    def write(self, stream: OutputStream, chunk: bytes) -> None:
        """Add *chunk* to the output of the job that runs."""


class PipeCapture(Capture):
    """Captures the output of this process in pipes."""

    def __init__(self, pipes: CapturePipes, slot: Slot) -> None:
        """Put *pipes* in the place of stdout and stderr; the worker's own log keeps its old place.

        *slot* has the job that runs. To be called before logging is set up: see `log_descriptor`.
        """
        #: The stderr that the worker's own log has.
        self.log_descriptor = os.dup(_STDERR) if _is_open(_STDERR) else os.open(os.devnull, os.O_WRONLY)
        self._pipes = pipes
        self._slot = slot
        self._descriptors = (pipes.stdout.fileno(), pipes.stderr.fileno())
        self._unread = array.array("i", [0])
        for descriptor, pipe in ((_STDOUT, pipes.stdout), (_STDERR, pipes.stderr)):
            os.dup2(pipe.fileno(), descriptor, inheritable=True)
        #: Whether jobs run side by side; the attempts of them that have written, by descriptor.
        self._beside = False
        self._wrote: dict[int, set[bytes]] = {descriptor: set() for descriptor in self._descriptors}
        self._streams = (
            self._stream(_STDOUT, pipes.stdout, sys.stdout),
            self._stream(_STDERR, pipes.stderr, sys.stderr),
        )
        sys.stdout, sys.stderr = self._streams
        sys.__stdout__, sys.__stderr__ = self._streams  # type: ignore[misc]  # the old ones write past marks
        self._flush_c = _line_buffer_c()

    def _stream(self, descriptor: int, pipe: Connection, before: Any) -> io.TextIOWrapper:
        """Return a stream that writes whole lines, and notes that it was used."""
        encoding = getattr(before, "encoding", None) or "utf-8"
        buffer = _OwnedBuffer(_NotingFile(descriptor, self), self, pipe.fileno())
        return io.TextIOWrapper(buffer, encoding=encoding, errors="backslashreplace", line_buffering=True)

    def settle(self, delivery: Delivery, number: int) -> None:
        """See `Capture.settle`. A good microsecond if nothing was written."""
        stdout, stderr = self._streams
        try:
            stdout.flush()
            stderr.flush()
        except (ValueError, OSError):
            pass  # a task has closed one: `leftovers` sees that
        self._flush_c()
        self.wrote = False
        unread = self._unread
        for descriptor in self._descriptors:
            ioctl(descriptor, FIONREAD, unread, True)
            if unread[0]:
                self._write_mark(descriptor, delivery, number)

    def write(self, stream: OutputStream, chunk: bytes) -> None:
        """See `Capture.write`; waits for the supervisor alone, which always reads."""
        self.wrote = True
        write_whole(self._descriptors[stream is OutputStream.STDERR], chunk)

    def _write_mark(self, descriptor: int, delivery: Delivery, number: int) -> None:
        name = AttemptName.of(delivery, number)
        write_whole(descriptor, mark(self._pipes.secret, ENDED, name.encoded()))

    # --- side by side ---------------------------------------------------------------------------------

    def begin_beside(self) -> None:
        """See `Capture.begin_beside`."""
        self._switch(beside=True)

    def end_beside(self) -> None:
        """See `Capture.end_beside`."""
        self._switch(beside=False)
        for names in self._wrote.values():
            names.clear()

    def _switch(self, *, beside: bool) -> None:
        for stream in self._streams:
            with contextlib.suppress(ValueError, OSError):  # a task has closed it: `leftovers` sees that
                stream.flush()
                # Text of one attempt must not wait here for the line's end, which another one may write.
                stream.reconfigure(write_through=beside)
        self._flush_c()
        self._beside = beside
        for descriptor in self._descriptors:
            write_whole(descriptor, mark(self._pipes.secret, BESIDE if beside else ALONE, b""))

    def ended(self, delivery: Delivery, number: int) -> None:
        """See `Capture.ended`. Nothing is written for an attempt that has written nothing."""
        name = AttemptName.of(delivery, number).encoded()
        for descriptor, names in self._wrote.items():
            if name in names:
                names.discard(name)
                write_whole(descriptor, mark(self._pipes.secret, ENDED, name))

    def write_own(self, descriptor: int, data: memoryview, kind: bytes = OWN_TEXT) -> bool:
        """Write *data* as that of the attempt whose code this is; return False if it is of none."""
        found = running_here() if self._beside else None
        if found is None:
            return False
        name = AttemptName.of(*found).encoded()
        self._wrote[descriptor].add(name)
        size = room_for(name)
        for begin in range(0, len(data), size):
            content = own(name, bytes(data[begin : begin + size]))
            write_whole(descriptor, mark(self._pipes.secret, kind, content))
        return True

    # --- the log --------------------------------------------------------------------------------------

    def join_logging(self) -> None:
        """Name the job in each record of the worker's log, and add the records of tasks to their output.

        To be called when logging is set up.
        """
        config = structlog.get_config()
        structlog.configure(
            processors=[self._add_job, *config["processors"]],
            logger_factory=partial(self._logger, config["logger_factory"]),
        )
        root = logging.getLogger()
        for handler in root.handlers:
            handler.addFilter(self._name_job)
        root.addHandler(_RecordHandler(self))

    def _logger(self, factory: Callable[..., Any], *names: str) -> Any:
        """Return the writer of the lines of a logger of structlog; those of a task are its output as well."""
        logger = factory(*names)
        return _TaskLogger(logger, self) if names == (TASK_LOGGER,) else logger

    def log(self, text: str) -> None:
        """Add a record that a task has logged to the output of the job that runs, if there is one."""
        content = (text + "\n").encode(errors="backslashreplace")
        if self._beside:
            self.write_own(self._pipes.stderr.fileno(), memoryview(content), OWN_RECORD)
        elif self._slot.peek().busy:
            self.wrote = True
            if len(content) > CONTENT_MAX:
                content = content[: CONTENT_MAX - 4] + "…\n".encode()
            write_whole(self._pipes.stderr.fileno(), mark(self._pipes.secret, RECORD, content))

    def _job(self) -> tuple[str, str] | None:
        """Return the id and the task of the job whose code this is, if that can be told."""
        if self._beside:
            found = running_here()
            return found and (job_id(found[0].origin, found[1]), found[0].terms.shown_task)
        look = self._slot.peek()
        return (look.job_id, look.task) if look.busy else None

    def _add_job(self, _logger: Any, _method: str, record: Any) -> Any:
        if "job_id" not in record and "first_job_id" not in record and (job := self._job()):
            record["job_id"], record["task"] = job
        return record

    def _name_job(self, record: logging.LogRecord) -> bool:
        if job := self._job():
            record.job_id, record.task = job
        return True


class _NotingFile(io.FileIO):
    """A descriptor that notes in a capture that it was written to."""

    def __init__(self, descriptor: int, capture: Capture) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._capture = capture

    def write(self, data: Any, /) -> int:
        """Write all of *data*, so that no line of this process is torn."""
        self._capture.wrote = True
        write_whole(self.fileno(), data)
        return memoryview(data).nbytes


class _OwnedBuffer(io.BufferedWriter):
    """A buffer before a descriptor, past which goes what an attempt writes that runs beside others."""

    def __init__(self, raw: _NotingFile, capture: PipeCapture, descriptor: int) -> None:
        super().__init__(raw)
        self._capture = capture
        self._descriptor = descriptor

    def write(self, data: Any, /) -> int:
        """Write all of *data*, now or with the next flush."""
        view = memoryview(data).cast("B")
        if self._capture.write_own(self._descriptor, view):
            return len(view)
        return super().write(view)


class _TaskLogger:
    """Writes the lines of `current_job().logger` to the worker's log, and adds them to the job's output."""

    def __init__(self, logger: Any, capture: PipeCapture) -> None:
        self._logger = logger
        self._capture = capture

    def msg(self, text: str) -> None:
        self._logger.msg(text)
        self._capture.log(_COLOR.sub("", text))

    debug = info = warning = error = critical = exception = fatal = msg


class _RecordHandler(logging.Handler):
    """Adds the records of `logging` to the output of the job that wrote them."""

    def __init__(self, capture: PipeCapture) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter(_RECORD_FORMAT))
        self._capture = capture

    def emit(self, record: logging.LogRecord) -> None:
        """Add *record*."""
        try:
            self._capture.log(self.format(record))
        except Exception:  # noqa: BLE001 - as in every handler, a record that cannot be formatted is reported
            self.handleError(record)


def write_whole(descriptor: int, data: Any) -> None:
    """Write all of *data*, and wait for room even if a task has made the descriptor non-blocking."""
    view = memoryview(data).cast("B")
    while view:
        try:
            view = view[os.write(descriptor, view) :]
        except BlockingIOError:
            room = select.poll()
            room.register(descriptor, select.POLLOUT)
            room.poll()


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _line_buffer_c() -> Any:
    """Let C's stdout write whole lines, as on a terminal; return a function that flushes it."""
    try:
        library = ctypes.CDLL(None)
        stdout = ctypes.c_void_p.in_dll(library, "stdout")
        library.setvbuf(stdout, None, _LINE_BUFFERED, ctypes.c_size_t(ATOMIC_BYTES))
    except (OSError, ValueError, AttributeError):
        return lambda: None
    flush = library.fflush
    return lambda: flush(stdout)
