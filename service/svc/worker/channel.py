"""The consumer's end of reports about jobs that run: progress and checkpoints, over the pipe.

A thread of its own writes them. It begins with the first report, so a consumer whose tasks report nothing has
no such thread. A task only leaves its report here: an exception that a signal raises in the task's thread
meanwhile never tears a message apart.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

import msgspec

from svc.domain.commands import PROTOCOL_VERSION, Checkpoint, Hello, JobProgress
from svc.error_codes import error_for
from svc.errors import LeaseLost, OutsideJob, ProtocolMismatch, ServiceError
from svc.worker.options import Connect, WorkerOptions
from svc.worker.orders import KEEP, OVER, OVER_MAX, PIECE, PIECE_BYTES, PROGRESS
from svc.worker.value_sender import Recorder

#: Seconds between two reports of progress from one process.
TELL_SECONDS = 0.2
#: Attempts that have lost their lease and are remembered.
LOST_MAX = 1000
#: Orders to end an attempt that are remembered: the attempt may only be about to begin.
CANCELLED_MAX = 1000

#: The supervisor's answer: the number of a checkpoint, whether it is recorded, an error's code and text.
Answer = tuple[int, bool, str, str]
_answers: msgspec.msgpack.Decoder[Answer] = msgspec.msgpack.Decoder(Answer)
#: The order to end an attempt: its token, its number, and the grace in seconds.
EndOrder = tuple[int, int, float]
_ends: msgspec.msgpack.Decoder[list[EndOrder]] = msgspec.msgpack.Decoder(list[EndOrder])


class _Sent:
    """A checkpoint on its way."""

    __slots__ = ("arrived", "checkpoint", "durable", "error")

    def __init__(self, checkpoint: Checkpoint, *, durable: bool) -> None:
        self.checkpoint = checkpoint
        self.durable = durable
        self.arrived = threading.Event()
        self.error: ServiceError | None = None


class PipeChannel:
    """Sends the reports of one consumer to its supervisor. Thread-safe.

    Args:
        pipe: the line to the supervisor.
        served: says whether the manager takes such reports; an older one does not.
        make_submitter: makes the client of tasks, of a function that returns the token of the submitting job.
        recorder: has partial results recorded.
    """

    def __init__(
        self,
        pipe: Connection,
        served: Callable[[], bool],
        make_submitter: Callable[[Callable[[], int]], Any] | None = None,
        recorder: Recorder | None = None,
    ) -> None:
        self.recorder = recorder
        self._pipe = pipe
        self._served = served
        self._pid = os.getpid()
        self._writing = threading.Lock()
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None
        #: The last report of each job that was not sent yet.
        self._reports: dict[tuple[int, int], JobProgress] = {}
        self._tell_at = 0.0
        self._outgoing: deque[tuple[int, _Sent]] = deque()
        #: Checkpoints that the journal is not known to have, by number; the last one of each job at least.
        self._sent: dict[int, _Sent] = {}
        self._count = 0
        #: Whether any job has left a checkpoint, so that there is something to forget.
        self.used = False
        self._make_submitter = make_submitter
        self._submitter: Any = None
        self._under = 0
        #: Called when orders to end attempts have come; set while several jobs run at once.
        self.ordered: Callable[[], object] | None = None
        #: The last attempts that were ordered to end, by their token and grace.
        self._cancelled: deque[tuple[int, float]] = deque(maxlen=CANCELLED_MAX)
        #: The last orders to end attempts that nobody has taken.
        self._end_orders: deque[EndOrder] = deque(maxlen=CANCELLED_MAX)
        #: Attempts that were ordered to end and are over; the supervisor has yet to hear of it.
        self._over: list[tuple[int, int]] = []
        #: The attempts that the manager has refused a checkpoint of, because they lost their lease.
        self._lost: set[tuple[int, int]] = set()

    def send(self, message: bytes) -> None:
        """Send a message that is sent at once."""
        with self._writing:
            self._pipe.send_bytes(message)

    # --- for tasks ------------------------------------------------------------------------------------

    def tell(self, report: JobProgress) -> None:
        """Send a report of progress; of several in a short time only the last one."""
        self._check_process()
        if self._served():
            with self._news:
                self._reports[report.token, report.number] = report
                self._wake()

    def keep(self, checkpoint: Checkpoint, *, durable: bool) -> None:
        """Return once the supervisor has *checkpoint* or, if *durable*, once it is in the journal.

        Raises:
            LeaseLost: the attempt is not the job's current one any more.
            JournalFull: the manager has no room for it.
            OutsideJob: this is another process than the one that runs the job.
            ProtocolMismatch: the manager is too old.
        """
        self._check_process()
        self.used = True
        if not self._served():
            raise ProtocolMismatch("the manager is of a release without checkpoints; upgrade it")
        if (checkpoint.token, checkpoint.number) in self._lost:
            raise LeaseLost("another consumer has the job by now; stop, no outcome of this attempt counts")
        sent = _Sent(checkpoint, durable=durable)
        with self._news:
            self._count += 1
            self._forget_older(checkpoint, self._count)
            self._sent[self._count] = sent
            self._outgoing.append((self._count, sent))
            self._wake()
        sent.arrived.wait()
        if sent.error is not None:
            raise sent.error

    def submitter(self, token: int) -> Any:
        """Return the client of this process, which submits for the job that runs under *token*.

        Raises:
            OutsideJob: this is another process, or the worker has no such client.
            ProtocolMismatch: the manager is too old.
        """
        self._check_process()
        if self._make_submitter is None:
            raise OutsideJob("this worker was started without a way to submit jobs")
        if not self._served():
            raise ProtocolMismatch("the manager is of a release without jobs of tasks; upgrade it")
        self._under = token
        if self._submitter is None:
            self._submitter = self._make_submitter(lambda: self._under)
        return self._submitter

    # --- for the consumer -----------------------------------------------------------------------------

    def answered(self, body: bytes) -> None:
        """Take the supervisor's answer about a checkpoint."""
        number, recorded, code, message = _answers.decode(body)
        with self._news:
            sent = self._sent.get(number)
            if sent is None:
                return
            if code:
                sent.error = error_for(code, message)
                if code == LeaseLost.code and len(self._lost) < LOST_MAX:
                    self._lost.add((sent.checkpoint.token, sent.checkpoint.number))
            if recorded or code:
                del self._sent[number]
                # Two threads may have left one each: the supervisor answers only the later one.
                self._forget_older(sent.checkpoint, number)
            if recorded or code or not sent.durable:
                sent.arrived.set()

    def ended(self, body: bytes) -> None:
        """Take the supervisor's order to end attempts; one that runs alone is ended by a signal."""
        for token, number, grace in _ends.decode(body):
            self._cancelled.append((token, grace))
            self._end_orders.append((token, number, grace))
        ordered = self.ordered
        if ordered is not None:
            ordered()

    def take_end_orders(self) -> Iterator[EndOrder]:
        """Return the orders to end attempts that have come since the last call, at most the last 1,000."""
        while self._end_orders:
            yield self._end_orders.popleft()

    def over(self, token: int, number: int) -> None:
        """Answer the order to end an attempt: it runs beside no other, and never will."""
        with self._news:
            self._over.append((token, number))
            self._wake()

    def last_cancelled(self) -> Sequence[tuple[int, float]]:
        """Return the last attempts that were ordered to end, by their token and grace. Thread-safe."""
        # A copy is made in one step of the interpreter; an iteration could meet the other thread's next one.
        return tuple(self._cancelled) if self._cancelled else ()

    def unrecorded(self, token: int, number: int) -> Checkpoint | None:
        """Return the last checkpoint of a job whose attempt ends, if the journal is not known to have it.

        The end of the attempt travels over another connection than the supervisor's copy, and must not come
        before it.
        """
        if not self._sent:
            return None
        with self._news:
            found = [key for key, sent in self._sent.items() if _is_of(sent.checkpoint, token, number)]
            left = [self._sent.pop(key).checkpoint for key in found]
        return left[-1] if left else None

    def forget(self, token: int) -> None:
        """Drop all that is kept of the jobs of a lease: their attempts have ended, and are reported."""
        with self._news:
            for key, sent in list(self._sent.items()):
                if sent.checkpoint.token == token:
                    del self._sent[key]
                    if not sent.arrived.is_set():  # a thread that the job has left waits for it
                        sent.error = OutsideJob("the attempt has ended; its checkpoint counts no more")
                        sent.arrived.set()
            self._lost = {attempt for attempt in self._lost if attempt[0] != token}

    def _forget_older(self, checkpoint: Checkpoint, number: int) -> None:
        """Drop those that *checkpoint*, the one with *number*, replaces and that nobody waits for."""
        token, job = checkpoint.token, checkpoint.number
        for key, sent in list(self._sent.items()):
            if key < number and sent.arrived.is_set() and _is_of(sent.checkpoint, token, job):
                del self._sent[key]

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise OutsideJob("this process was started by the task; only the task's own process may report")

    # --- the thread -----------------------------------------------------------------------------------

    def _wake(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="reports", daemon=True)
            self._thread.start()
        self._news.notify()

    def _run(self) -> None:
        try:
            while True:
                with self._news:
                    while (pause := self._pause()) != 0:
                        self._news.wait(pause)
                    checkpoints, self._outgoing = self._outgoing, deque()
                    over, self._over = self._over, []
                    reports = self._due_reports()
                for start in range(0, len(over), OVER_MAX):
                    self.send(OVER + msgspec.msgpack.encode(over[start : start + OVER_MAX]))
                for number, sent in checkpoints:
                    self._send_checkpoint(number, sent)
                for report in reports:
                    self.send(PROGRESS + msgspec.msgpack.encode(report))
        except OSError:
            return  # the supervisor is gone, and this process goes with it

    def _pause(self) -> float | None:
        """Return the seconds until there is something to send; None while there is nothing."""
        if self._outgoing or self._over:
            return 0
        return max(0.0, self._tell_at - time.monotonic()) if self._reports else None

    def _due_reports(self) -> list[JobProgress]:
        now = time.monotonic()
        if not self._reports or now < self._tell_at:
            return []
        self._tell_at = now + TELL_SECONDS
        reports, self._reports = self._reports, {}
        return list(reports.values())

    def _send_checkpoint(self, number: int, sent: _Sent) -> None:
        """Send it in pieces that the kernel takes whole, so a killed process leaves no half of a message."""
        checkpoint, data = sent.checkpoint, sent.checkpoint.data
        last = (len(data) - 1) // PIECE_BYTES * PIECE_BYTES
        for start in range(0, last, PIECE_BYTES):
            self.send(PIECE + data[start : start + PIECE_BYTES])
        end = (number, checkpoint.token, checkpoint.number, sent.durable, data[last:])
        self.send(KEEP + msgspec.msgpack.encode(end))


def submitter_of(options: WorkerOptions, connect: Connect) -> Callable[[Callable[[], int]], Any] | None:
    """Return a function that makes the client of a consumer's tasks; None if they have none."""
    make, keys = options.submitter, options.pickle_keys
    hello = Hello(PROTOCOL_VERSION, "client", release=options.release)
    return None if make is None else lambda under: make(lambda: connect(lambda: hello), keys, under)


def _is_of(checkpoint: Checkpoint, token: int, number: int) -> bool:
    return checkpoint.token == token and checkpoint.number == number
