"""One program, run to its end with all processes that it has started.

It runs in a process group of its own, with nothing on its standard input. The consumer is a subreaper
(`offspring`), so what the program leaves behind is found and killed also if it has detached itself.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

from svc.errors import ServiceError
from svc.worker.offspring import children_check, descendants
from svc.worker.stragglers import end_stragglers

_NULL: Final = (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)
#: Signals that a command finds at their defaults; Python and a task may have changed some.
_RESET: Final = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
_READ_BYTES = 1 << 16
#: What a pipe holds at most for users without privileges.
_PIPE_BYTES = 1 << 20
#: The longest wait at a time: `poll` takes no more than some weeks.
_WAIT_SECONDS = 86400.0


class Sink(Protocol):
    """Takes the output of a program."""

    def add(self, chunk: bytes) -> None:
        """Take the next bytes."""


class NotStarted(Exception):
    """A program cannot be started, for a *reason*."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(reason)
        self.reason = reason


def carried_out(
    argv: Sequence[str | bytes],
    environment: Mapping[Any, Any],
    timeout: float | None,
    out: Sink,
    err: Sink,
) -> int | None:
    """Run a command to its end; return its exit code, negative for a signal, or None after *timeout* seconds.

    Raises:
        NotStarted: the program cannot be started.
    """
    # Only tasks that keep children leave some behind, so this is a look of a microsecond.
    spared = descendants(os.getpid()) if children_check()() else ()
    descriptors: list[int] = []
    over = False
    try:
        started = _started(argv, environment, descriptors)
        in_time = _wait(started, {started.out: out, started.err: err}, timeout)
        # The command is not collected yet, so its number is still its own.
        os.killpg(started.pid, signal.SIGKILL)
        status = os.waitpid(started.pid, 0)[1]
        end_stragglers(spared)
        over = True
        _read_rest({started.out: out, started.err: err})
        return os.waitstatus_to_exitcode(status) if in_time else None
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
        if not over:
            end_stragglers(spared)  # an exception has cut this short: the command itself is among them


class _Started(NamedTuple):
    pid: int
    out: int
    err: int
    handle: int


def _started(argv: Sequence[str | bytes], environment: Mapping[Any, Any], descriptors: list[int]) -> _Started:
    """Start a command; *descriptors* gets those that are to be closed.

    The writing ends of the pipes stay open here: so the end of the command wakes this process, and not the
    end of each of its outputs as well.

    Raises:
        NotStarted: the program cannot be started.
    """
    try:
        out, out_end = os.pipe2(os.O_CLOEXEC)
        descriptors += out, out_end
        err, err_end = os.pipe2(os.O_CLOEXEC)
        descriptors += err, err_end
        pid = os.posix_spawnp(
            argv[0],
            tuple(argv),
            environment,
            file_actions=(
                _NULL,
                (os.POSIX_SPAWN_DUP2, out_end, 1),
                (os.POSIX_SPAWN_DUP2, err_end, 2),
            ),
            setpgroup=0,
            setsigmask=(),
            setsigdef=_RESET,
        )
        handle = os.pidfd_open(pid)
    except OSError as error:
        if isinstance(error, ServiceError):
            raise  # an interruption of the task, as a soft timeout, which is a TimeoutError
        raise NotStarted(error) from None
    descriptors.append(handle)
    return _Started(pid, out, err, handle)


def _wait(started: _Started, outputs: Mapping[int, Sink], timeout: float | None) -> bool:
    """Read the outputs until the command has ended; return whether that was within *timeout* seconds."""
    poll = select.poll()
    for descriptor in (started.out, started.err, started.handle):
        poll.register(descriptor, select.POLLIN)
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        left = _WAIT_SECONDS if deadline is None else min(deadline - time.monotonic(), _WAIT_SECONDS)
        if left <= 0:
            return False
        ready = [descriptor for descriptor, _ in poll.poll(left * 1000 + 1)]
        if started.handle in ready:
            return True
        for descriptor in ready:
            outputs[descriptor].add(os.read(descriptor, _READ_BYTES))


def _read_rest(outputs: Mapping[int, Sink]) -> None:
    """Read the content of pipes that nobody fills any more, but for a process that could not be killed."""
    poll = select.poll()
    for descriptor in outputs:
        poll.register(descriptor, select.POLLIN)
    for _ in range(_PIPE_BYTES // _READ_BYTES + 1):
        ready = poll.poll(0)
        if not ready:
            return
        for descriptor, _event in ready:
            outputs[descriptor].add(os.read(descriptor, _READ_BYTES))
