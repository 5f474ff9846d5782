"""Jobs that several threads submit one by one at the same time, sent together.

One request is on its way at a time. Whoever submits meanwhile waits for its end anyway; the first of them
then sends one frame for all. So a process with fifty threads waits for two commits, not for fifty, and one
thread alone waits for nobody.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable

from svc.broker.forks import begin_anew_in_children
from svc.client.chunks import Encoded, Frame
from svc.errors import ManagerUnreachable, ServiceError

#: Submits a frame; returns for each of its jobs the id, or why it was not accepted.
Send = Callable[[Frame], list[str | ServiceError]]


class _Entry:
    """A job, and once it has been sent what became of it."""

    __slots__ = ("answer", "job")

    def __init__(self, job: Encoded) -> None:
        self.job = job
        self.answer: str | ServiceError | None = None


class SubmitCoalescer:
    """What sends the single jobs of many threads."""

    def __init__(self, send: Send) -> None:
        """Send by *send*, which is called by one thread at a time."""
        self._send = send
        self.begin_anew()
        begin_anew_in_children(self)

    def begin_anew(self) -> None:
        """Have nothing to send: the threads that wait for it are the parent's."""
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
        """Send what waits; from a signal handler that interrupted this very thread in that, *own* alone."""
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
        """Take as much of what waits as one frame holds."""
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
                # Each thread raises an error of its own: they would write into one traceback.
                entry.answer = _same(error)
            if isinstance(error, Exception) and own not in entries:
                return
            with contextlib.suppress(ValueError):
                self._waiting.remove(own)
            raise
        for entry, answer in zip(entries, answers, strict=True):
            entry.answer = answer


def _same(error: BaseException) -> ServiceError:
    """Return what a thread raises whose job was sent by another, which met *error*."""
    if isinstance(error, ServiceError):
        return type(error)(str(error))
    return ManagerUnreachable(
        f"the thread that was sending this job was stopped by {type(error).__name__}; it is not known "
        "whether the job was accepted"
    )
