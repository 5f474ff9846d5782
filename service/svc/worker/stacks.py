"""The Python stacks of a consumer's threads, which `faulthandler` writes for the supervisor.

It does that in C, in the handler of a signal: also while code in C keeps the interpreter's lock for ever.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import re
import signal
import time
from collections.abc import Collection
from multiprocessing.connection import Connection
from typing import Final

from svc.domain.field_bounds import TRACEBACK_MAX

#: The signal at which a consumer writes its stacks; it is one that programs hardly use.
STACK_SIGNAL: Final = signal.SIGRTMAX - 3 if hasattr(signal, "SIGRTMAX") else signal.SIGUSR1
#: The seconds that a consumer has to write them before it is killed; while more of them comes with pauses
#: below the second figure, it has the third. The main thread is the last of many, and a host may be busy.
STACK_SECONDS: Final = 0.05
_QUIET_SECONDS: Final = 0.03
LONGEST_SECONDS: Final = 0.3
#: Bytes of a consumer's stacks that are kept until its end: faulthandler writes 100 threads of 100 frames at
#: most. And the usual room of a pipe.
_READ_BYTES_MAX: Final = 1 << 20
_PIPE_BYTES: Final = 1 << 16
_FATAL: Final = "Fatal Python error"
_CURRENT: Final = "Current thread"
#: The address of a thread tells nobody anything; without it, equal stacks are equal texts, kept once.
_ADDRESS: Final = re.compile(r"^(Current thread|Thread) 0x[0-9a-f]+", re.MULTILINE)


def write_stacks_to(pipe: Connection) -> None:
    """Let this process write its stacks to *pipe* at a fatal signal, and at `STACK_SIGNAL`."""
    faulthandler.enable(pipe.fileno())
    faulthandler.register(STACK_SIGNAL, pipe.fileno(), all_threads=True)


class StackReader:
    """The supervisor's end of the pipe to which one consumer writes its stacks.

    Attributes:
        asked_for: the attempt, by token and number, in which the consumer was asked for its stacks; or None.
        due: the monotonic time until which it may write them.
        open: whether more may come.
    """

    def __init__(self, pipe: Connection) -> None:
        """Read from *pipe*."""
        self.pipe = pipe
        self.asked_for: tuple[int, int] | None = None
        self.due = 0.0
        self.open = True
        self._read = bytearray()
        #: When the last piece came, and until when others may.
        self._came_at = self._latest = 0.0
        # Never wait: a process that a task forked may still hold the other end.
        os.set_blocking(pipe.fileno(), False)

    def ask(self, pid: int, attempt: tuple[int, int], now: float) -> None:
        """Ask the consumer, process *pid*, for its stacks in *attempt*."""
        self.forget()
        self.asked_for, self.due, self._latest = attempt, now + STACK_SECONDS, now + LONGEST_SECONDS
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, STACK_SIGNAL)

    def are_awaited(self, now: float) -> bool:
        """Return whether to wait for the stacks: their time is not over, or they are still coming."""
        if now < self.due:
            return True
        self.read()
        if now >= self._latest or now - self._came_at >= _QUIET_SECONDS:
            return False
        self.due = min(now + _QUIET_SECONDS, self._latest)
        return True

    def forget(self) -> None:
        """Forget the stacks that came so far, and the attempt."""
        self.read()
        self._read.clear()
        self.asked_for = None

    def note(self, ready: Collection[object]) -> None:
        """Take in stacks that have come, if the pipe is among *ready*: a full pipe holds up its writer."""
        if self.pipe in ready:
            self.read()

    def read(self) -> None:
        """Take in all that has come; the end of it is left out if it is too much."""
        with contextlib.suppress(BlockingIOError):
            while self.open:
                piece = os.read(self.pipe.fileno(), _PIPE_BYTES)
                self.open = bool(piece)
                self._read += piece[: _READ_BYTES_MAX - len(self._read)]
                self._came_at = time.monotonic()

    def of_the_attempt(self) -> str:
        """Return the stacks for which the consumer was asked; "" if it has written none."""
        self.read()
        return shown_stacks(self._read.decode(errors="replace").partition(_FATAL)[0])

    def of_the_crash(self) -> str:
        """Return the stacks that it has written at a fatal signal; "" if there are none."""
        self.read()
        _, fatal, stacks = self._read.decode(errors="replace").rpartition(_FATAL)
        return shown_stacks(fatal + stacks) if fatal else ""


def shown_stacks(dump: str) -> str:
    """Return *dump* as an error keeps it: bounded, and its current thread, mostly the main one, first."""
    parts = _ADDRESS.sub(r"\1", dump).strip().split("\n\n")
    text = "\n\n".join(
        sorted(parts, key=lambda part: (not part.startswith(_FATAL), not part.startswith(_CURRENT)))
    )
    if len(text) <= TRACEBACK_MAX:
        return text
    cut = f"\n… {len(text) - TRACEBACK_MAX} characters left out"
    return text[: TRACEBACK_MAX - len(cut)] + cut
