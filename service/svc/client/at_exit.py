"""The exit of a program that has submitted jobs with an Executor: sends the remaining jobs first.

The interpreter would end the sending threads and lose their jobs. So exit waits for them, for a limited time.
It starts no thread, because CPython forbids that from 3.12 on.
"""

from __future__ import annotations

import atexit
import sys
import time
import weakref
from collections.abc import Iterable
from typing import Protocol

#: Seconds that the exit of the program waits for jobs to be sent, for all executors together.
EXIT_SECONDS = 30.0
#: Seconds after which a line on stderr explains the wait, and between two such lines.
PROGRESS_SECONDS = 1.0


class Sender(Protocol):
    """Sends jobs from a thread of its own."""

    def unsent(self) -> int:
        """Return the number of jobs that are neither acknowledged nor refused."""

    def flush(self, timeout: float | None = None) -> bool:
        """Wait up to *timeout* seconds until no job is unsent; return whether that is so."""

    def refusals(self) -> tuple[int, str]:
        """Return the number of jobs refused so far, and the reason for the last one."""


class _Exit:
    """All senders of this process that may hold a job when it ends.

    Attributes:
        flushed: whether that was done; handlers of `atexit` that were registered earlier still run.
    """

    def __init__(self) -> None:
        self._senders: weakref.WeakSet[Sender] = weakref.WeakSet()
        self._hooked = False
        self._end = 0.0
        self.flushed = False

    def add(self, sender: Sender) -> None:
        """Have *sender* flushed at exit. Called when it is made, and by its first submit in each process."""
        if not self._hooked:
            atexit.register(self._flush)
            self._hooked = True
        self._senders.add(sender)
        util = sys.modules.get("multiprocessing.util")
        process = sys.modules.get("multiprocessing.process")
        if util is not None and process is not None and process.parent_process() is not None:
            # A child of multiprocessing ends without atexit.
            util.Finalize(None, self._flush, exitpriority=100)

    def check(self) -> None:
        """See that a job can still be sent.

        Raises:
            RuntimeError: the interpreter has stopped the threads that would send it.
        """
        if sys.is_finalizing():
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    def send(self, sender: Sender) -> None:
        """Have what *sender* holds sent now, as nobody waits for it later; say what was not."""
        refused = {id(sender): sender.refusals()[0]}
        _wait_sent([sender], self._end)
        _tell_lost([sender], refused)

    def _flush(self) -> None:
        self._end = time.monotonic() + EXIT_SECONDS
        senders = [sender for sender in self._senders if sender.unsent()]
        if senders:
            refused = {id(sender): sender.refusals()[0] for sender in senders}
            _wait_sent(senders, self._end)
            _tell_lost(senders, refused)
        self.flushed = True


#: Has what a sender holds sent before this process ends.
AT_EXIT = _Exit()


def _wait_sent(senders: Iterable[Sender], end: float) -> None:
    for sender in senders:
        while not sender.flush(max(0.0, min(PROGRESS_SECONDS, end - time.monotonic()))):
            if time.monotonic() >= end:
                break
            _say(f"sending {_jobs(sender.unsent())} before this program ends")


def _tell_lost(senders: Iterable[Sender], refused: dict[int, int]) -> None:
    """Report the jobs that will not run: no caller is left who could ask their futures."""
    for sender in senders:
        count, reason = sender.refusals()
        if count > refused[id(sender)]:
            _say(f"{_jobs(count - refused[id(sender)])} not accepted: {reason}")
        if left := sender.unsent():
            _say(f"{_jobs(left)} not sent: the manager did not answer within {EXIT_SECONDS:g} s")


def _jobs(count: int) -> str:
    return "1 job" if count == 1 else f"{count:,} jobs"


def _say(what: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(f"svc: {what}\n")
