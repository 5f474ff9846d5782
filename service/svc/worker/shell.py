"""Runs shell commands as jobs, on workers that were started with `--shell`.

A command is a program and its arguments; no shell reads them. It runs in a process group of its own, with
nothing on its standard input. All processes that it leaves behind die with the attempt, also those that have
detached themselves (`command`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from svc.domain.field_bounds import TRACEBACK_MAX
from svc.domain.job import SHELL, Cause, ErrorInfo, OutputStream
from svc.errors import OutsideJob
from svc.worker.capture import Capture
from svc.worker.command import NotStarted, carried_out
from svc.worker.context import current_job
from svc.worker.exit_codes import FAILED, MISSING, NOT_BEGUN, NOT_FOUND, NOT_STARTED, shown
from svc.worker.failure import AttemptFailed, Failure
from svc.worker.head_and_tail import HeadAndTail
from svc.worker.leftovers import environment
from svc.worker.process import describe_exit
from svc.worker.registry import Task, TaskOptions

#: Of a failed command, so much of each output is kept with the error, which has a bound of its own.
_SHOWN_BYTES = TRACEBACK_MAX // 4
_LINE_MAX = 400


class Shell:
    """Runs the commands of one consumer.

    Args:
        output_bytes: bytes that are kept of each output of a command.
        capture: takes the outputs while the command runs, as those of a task.
    """

    def __init__(self, output_bytes: int, capture: Capture | None = None) -> None:
        self._output_bytes = output_bytes
        self._capture = capture or Capture()

    def task(self) -> Task:
        """Return the task by which jobs ask for commands."""
        return Task(SHELL, self.run, TaskOptions(retries=0), within=self.within, leaves_nothing=True)

    def run(self, argv: Any, retry_on: list[int] | None = None) -> dict[str, Any]:
        """Run the program `argv[0]` with the other arguments; return its exit code, outputs and duration.

        Args:
            argv: the program, which is looked up in PATH, and its arguments.
            retry_on: the exit codes after which the job may be tried again; None for all but 0.

        Raises:
            AttemptFailed: it did not end with exit code 0.
        """
        return self._run(argv, retry_on, None)

    def within(self, timeout: float) -> Callable[..., dict[str, Any]]:
        """Return `run` for commands that are killed after *timeout* seconds."""

        def run(argv: Any, retry_on: list[int] | None = None) -> dict[str, Any]:
            return self._run(argv, retry_on, timeout)

        return run

    def _run(self, argv: Any, retry_on: Collection[int] | None, timeout: float | None) -> dict[str, Any]:
        _check(argv)
        out, err = (_Output(self._output_bytes, self._capture, stream) for stream in OutputStream)
        started = time.monotonic()
        try:
            code = carried_out(argv, _variables(), timeout, out, err)
        except NotStarted as error:
            raise _unstartable(argv, error.reason, retry_on) from None
        seconds = time.monotonic() - started
        if code is None:
            message = f"the command ran over its timeout of {timeout:g} s and was killed"
            raise _failed("TimedOut", message, out, err, Cause.TIMED_OUT, permanent=False)
        if code:
            raise _unsuccessful(code, out, err, retry_on)
        return {
            "exit_code": 0,
            "stdout": out.value(),
            "stderr": err.value(),
            "stdout_bytes": out.count,
            "stderr_bytes": err.count,
            "seconds": round(seconds, 6),
        }


class _Output(HeadAndTail):
    """An output of a command: its ends are kept, and all of it is captured."""

    def __init__(self, most: int, capture: Capture, stream: OutputStream) -> None:
        super().__init__(most)
        self._capture, self._stream = capture, stream

    def add(self, chunk: bytes) -> None:
        """Take the next bytes."""
        super().add(chunk)
        self._capture.write(self._stream, chunk)


def _variables() -> Mapping[Any, Any]:
    """Return the environment of a command: that of the worker, and the names of the job."""
    try:
        job = current_job()
    except OutsideJob:
        return environment()
    named = {"ID": job.id, "TASK": job.task, "QUEUE": job.queue, "ATTEMPT": str(job.attempt)}
    return {
        **environment(),
        **{f"SVC_JOB_{name}".encode(): os.fsencode(value) for name, value in named.items()},
    }


def _check(argv: Any) -> None:
    """Refuse a command that is none on any worker.

    Raises:
        AttemptFailed: it is no program with its arguments.
    """
    if not isinstance(argv, list | tuple) or not all(isinstance(each, str | bytes) for each in argv):
        message = "a command is a list of a program and its arguments, each a text or bytes"
    elif not argv or not argv[0]:
        message = "the command names no program"
    elif any((b"\0" if isinstance(each, bytes) else "\0") in each for each in argv):
        message = "an argument of a command cannot have a NUL byte"
    else:
        return
    raise AttemptFailed(Failure(ErrorInfo("ArgumentError", message), Cause.REFUSED, permanent=True))


def _unstartable(
    argv: Sequence[str | bytes], error: OSError, retry_on: Collection[int] | None
) -> AttemptFailed:
    name, code = repr(os.fsdecode(argv[0]))[:_LINE_MAX], NOT_STARTED
    message = f"the program {name} cannot be started: {error.strerror}"
    if isinstance(error, FileNotFoundError):
        code, message = NOT_FOUND, f"{MISSING} {name}"
        if len(argv) == 1 and len(name.split()) > 1:
            message += "; for a line of shell code write sh -c '…'"
    permanent = retry_on is not None and code not in retry_on
    return AttemptFailed(Failure(ErrorInfo(NOT_BEGUN, message), Cause.FAILED, permanent))


def _unsuccessful(
    code: int, out: HeadAndTail, err: HeadAndTail, retry_on: Collection[int] | None
) -> AttemptFailed:
    permanent = retry_on is not None and shown(code) not in retry_on
    last = err.text().rstrip().rpartition("\n")[2][:_LINE_MAX]
    message = describe_exit(code) + (f": {last}" if last else "")
    return _failed(FAILED, message, out, err, Cause.FAILED, permanent=permanent)


def _failed(
    kind: str, message: str, out: HeadAndTail, err: HeadAndTail, cause: Cause, *, permanent: bool
) -> AttemptFailed:
    """Return the failure with the ends of the outputs in place of a traceback."""
    outputs = [
        f"{name}:\n{_ends_of(kept)}" for name, kept in (("stderr", err), ("stdout", out)) if kept.count
    ]
    return AttemptFailed(Failure(ErrorInfo(kind, message, "\n".join(outputs)), cause, permanent))


def _ends_of(kept: HeadAndTail) -> str:
    text = kept.text()
    if len(text) <= 2 * _SHOWN_BYTES - 100:
        return text
    return f"{text[: _SHOWN_BYTES - 100]}\n…\n{text[-_SHOWN_BYTES:]}"
