"""Sends jobs together that several threads submit one by one at the same time.

Only one request is on its way at a time. Jobs that are submitted meanwhile have to wait for it anyway; then
the first of their threads sends one frame for all of them. So fifty threads of a process wait for two
commits, not for fifty, and a single thread waits for no other.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable

from svc.broker.forks import begin_anew_in_children
from svc.client.specs import Encoded, Frame
from svc.errors import ManagerUnreachable, ServiceError

#: Submits a frame; returns the id of each of its jobs, or the error why it was not accepted.
Send = Callable[[Frame], list[str | ServiceError]]


class _Entry:
    """A job and, once it has been sent, its id or error."""

    __slots__ = ("answer", "job")

    def __init__(self, job: Encoded) -> None:
        self.job = job
        self.answer: str | ServiceError | None = None


class SubmitCoalescer:
    """Sends the single jobs of many threads."""

    def __init__(self, send: Send) -> None:
        """Send with *send*, which only one thread calls at a time."""
        self._send = send
        self.begin_anew()
        begin_anew_in_children(self)

    def begin_anew(self) -> None:
        """Start without jobs: threads that wait for earlier jobs are the parent's."""
        self._sending = threading.RLock()
        self._busy = False
        self._waiting: deque[_Entry] = deque()

    def submit(self, job: Encoded) -> str:
        """Submit one job; return its id.

        Raises:
            ServiceError: it was not accepted, or it is not known whether it was.
        """
        entry = _Entry(job)
        self._waiting.append(entry)
        while entry.answer is None:
            with self._sending:
                if entry.answer is None:
                    self._send_next(entry)
        if isinstance(entry.answer, ServiceError):
            raise entry.answer
        return entry.answer

    def _send_next(self, own: _Entry) -> None:
        """Send the waiting jobs; in a signal handler that interrupted this thread in that, only *own*."""
        if self._busy:
            self._waiting.remove(own)
            self._send_frame(Frame([own.job]), [own], own)
            return
        self._busy = True
        try:
            self._send_frame(*self._take(), own)
        finally:
            self._busy = False

    def _take(self) -> tuple[Frame, list[_Entry]]:
        """Take as many of the waiting jobs as fit into one frame."""
        frame = Frame()
        entries: list[_Entry] = []
        while self._waiting and not (entries and frame.full_with(len(self._waiting[0].job.body))):
            entries.append(self._waiting.popleft())
            frame.add(entries[-1].job, len(entries[-1].job.body))
        return frame, entries

    def _send_frame(self, frame: Frame, entries: list[_Entry], own: _Entry) -> None:
        try:
            answers = self._send(frame)
        except BaseException as error:
            for entry in entries:
                # Each thread raises its own error object: a shared one would collect all tracebacks.
                entry.answer = _same(error)
            if isinstance(error, Exception) and own not in entries:
                return
            with contextlib.suppress(ValueError):
                self._waiting.remove(own)
            raise
        for entry, answer in zip(entries, answers, strict=True):
            entry.answer = answer


def _same(error: BaseException) -> ServiceError:
    """Return the error for a thread whose job was sent by another thread, which failed with *error*."""
    if isinstance(error, ServiceError):
        return type(error)(str(error))
    return ManagerUnreachable(
        f"the thread that was sending this job was stopped by {type(error).__name__}; it is not known "
        "whether the job was accepted"
    )
