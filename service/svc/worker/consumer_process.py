"""A consumer process as its supervisor sees it."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext, ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess
from typing import Final

from svc.domain.commands import Recall
from svc.worker.consumer_exit import Killed
from svc.worker.entry import consume
from svc.worker.options import ConfigureLogging, Connect, WorkerOptions
from svc.worker.orders import FLUSH, STOP
from svc.worker.process import forkserver_pid, has_ended, kill, main_hidden, signals_held_back
from svc.worker.slot import Phase, Slot, SlotState

#: Seconds that a consumer is still watched closely after the last reason for it.
_WATCH_SECONDS = 1.0
#: Seconds that a consumer without a job or outcomes may take to leave.
_LEAVE_SECONDS = 2.0
#: Seconds that a job runs before the jobs behind it are taken back, and finished outcomes are sent.
_LONG_SECONDS = 0.02
#: Bytes of a crashed consumer's stack that are kept.
_STACK_BYTES_MAX = 16 * 1024
#: The exit code of a consumer if its forkserver could not report one, or if it really ended with it.
_UNTOLD = 255
#: Seconds that a forkserver may take to end after it has closed its files: the kernel does that first.
_FORKSERVER_SECONDS = 0.1

#: The directory in which multiprocessing makes semaphores and shared arrays.
_SHARED_MEMORY: Final = "/dev/shm"  # noqa: S108  # named in an error, not used
_CLOSED: Final = "cannot be written by this user"
#: What the error's number means there; any other one is no fault of that directory.
_SHARED_MEMORY_STATES: Final = {
    errno.ENOENT: "is missing",
    errno.ENOTDIR: "is missing",
    errno.ENOSYS: "is missing, or no file system in memory",
    errno.ENOSPC: "is full",
    errno.EDQUOT: "is full",
    errno.EACCES: _CLOSED,
    errno.EPERM: _CLOSED,
    errno.EROFS: _CLOSED,
}


@dataclass(slots=True, eq=False)
class ConsumerProcess:
    """One consumer process, its slot and the pipe to it.

    Attributes:
        name: the consumer's name; no two processes of a worker ever have the same.
        killed: the reason if the supervisor or the end of the forkserver killed it; else None.
        forkserver: the process that forked it and with which it dies; 0 if there is none.
        executing: the last look at its slot before it was killed.
        born: the monotonic time of its start.
    """

    name: str
    process: BaseProcess
    slot: Slot
    pipe: Connection
    trace: Connection
    pid: int
    forkserver: int = 0
    killed: Killed | None = None
    executing: SlotState | None = None
    born: float = 0.0
    _leaving_since: float = 0.0
    _open: bool = True
    _watched_until: float = 0.0
    _flushed: tuple[int, int] = field(default=(0, 0))

    @classmethod
    def start(
        cls,
        context: ForkServerContext | SpawnContext,
        options: WorkerOptions,
        name: str,
        connect: Connect,
        configure_logging: ConfigureLogging,
    ) -> ConsumerProcess:
        """Start a consumer process.

        Raises:
            OSError: the system has no room for another process, or for its files.
        """
        with signals_held_back():
            # Its lock starts multiprocessing's tracker, which then lets the signals of this thread through.
            slot = make_slot(context)
        ours, theirs = context.Pipe()
        trace, written = context.Pipe(duplex=False)
        process = context.Process(
            target=consume, name=name, args=(options, name, slot, theirs, written, connect, configure_logging)
        )
        try:
            with signals_held_back(), main_hidden():
                process.start()
        except BaseException as error:
            ours.close()
            trace.close()
            if not isinstance(error, EOFError):
                raise
            # The forkserver ends if it cannot fork; the next start makes another.
            raise OSError(
                "the forkserver ended before the process began; is there a bound on processes?"
            ) from None
        finally:
            theirs.close()
            written.close()
        forkserver = forkserver_pid() if context.get_start_method() == "forkserver" else 0
        return cls(name, process, slot, ours, trace, process.pid or 0, forkserver, born=time.monotonic())

    def waitables(self) -> list[int | Connection]:
        """Return the objects that become readable when the process ends or sends a message."""
        return [self.process.sentinel, *([self.pipe] if self._open else [])]

    def messages(self) -> list[bytes]:
        """Return the messages that came from the process since the last call."""
        said: list[bytes] = []
        try:
            while self._open and self.pipe.poll():
                said.append(self.pipe.recv_bytes())
        except (EOFError, OSError):
            self._open = False
        return said

    def order(self, what: bytes) -> None:
        """Send an order to the process; if it has ended, the order is lost."""
        with contextlib.suppress(OSError):
            self.pipe.send_bytes(what)

    def check(self, now: float, grace: float, import_timeout: float) -> Recall | None:
        """Act on the state of the job that it executes; return a report of jobs that it has to lose.

        *grace* and *import_timeout* are the worker's, in seconds.
        """
        look = self.slot.look()
        if look.overrun(now):
            # The slot is held meanwhile, or the consumer could begin another job just before it dies.
            with self.slot.held():
                if self.slot.peek().overrun(now):
                    self.kill(Killed.TIMED_OUT)
        elif look.busy and now - look.started >= _LONG_SECONDS:
            self._flush(look)
            return self._take_back(now) if look.ahead else None
        elif self._lingers(look, now, grace):
            self.kill(Killed.LINGERED)
        elif look.phase is Phase.STARTING and now - self.born > import_timeout:
            self.kill(Killed.HUNG)
        return None

    def _flush(self, look: SlotState) -> None:
        """Order it to send finished outcomes that wait behind a long job; once for each job."""
        if look.unsent and self._flushed != (look.token, look.number):
            self._flushed = (look.token, look.number)
            self.order(FLUSH)

    def _take_back(self, now: float) -> Recall | None:
        """Take back the jobs that it has read ahead if it is on a long job."""
        with self.slot.held() as held:
            look = self.slot.peek()
            long = look.busy and now - look.started >= _LONG_SECONDS
            if not (held and long and look.ahead) or look.recalled:
                return None
            self.slot.recall()
        return Recall(self.name, look.token, look.number, look.last)

    def kill(self, why: Killed) -> None:
        """Kill the process; remember the reason and its last look. Hold the slot if it might go on."""
        if self.killed is None:
            self.killed = why
            self.executing = self.slot.peek()
        kill(self.pid)

    def watch(self, now: float, needed: bool) -> bool:
        """Keep a close watch while it is *needed* and a little longer; return whether it is kept."""
        if needed:
            if not self._watched_until:
                self.slot.watch(closely=True)
            self._watched_until = now + _WATCH_SECONDS
        elif self._watched_until and now >= self._watched_until:
            self._watched_until = 0.0
            self.slot.watch(closely=False)
        return self._watched_until > 0

    def needs_watching(self, look: SlotState) -> bool:
        """Whether its job may need action from the supervisor while it executes."""
        flushable = look.unsent and self._flushed != (look.token, look.number)
        return look.busy and (look.timeout > 0 or flushable or (look.ahead > 0 and not look.recalled))

    def stop(self) -> None:
        """Order it to finish its job and leave."""
        self._leaving_since = self._leaving_since or time.monotonic()
        self.order(STOP)

    def _lingers(self, look: SlotState, now: float, grace: float) -> bool:
        """Whether it was ordered to leave and is still there for no good reason.

        Without a job and outcomes it has a short time: it may be waiting for a manager that is away. After
        its pill it has the *grace*.
        """
        pilled = look.phase in (Phase.PILLED, Phase.DRAINED)
        if pilled:
            self._leaving_since = self._leaving_since or now
        if not self._leaving_since or look.busy:
            return False
        return now - self._leaving_since > (grace if look.unsent or pilled else _LEAVE_SECONDS)

    def ended(self, ready: Collection[object]) -> bool:
        """Whether the process has ended; *ready* are those of the `waitables` that became readable."""
        # To ask a forkserver for the exit code takes 50 µs, and it knows it by the sentinel.
        asks = not self.forkserver or self.process.sentinel in ready
        return asks and self.process.exitcode is not None

    def reap(self) -> tuple[int, SlotState, str]:
        """Free the resources of the process; return its exit code, last look, and stack after a crash."""
        self.process.join()
        code = self.process.exitcode or 0
        if code == _UNTOLD and self.forkserver and has_ended(self.forkserver, _FORKSERVER_SECONDS):
            # A consumer dies with its forkserver, as far as the kernel can do that: make sure of it.
            with self.slot.held():
                self.kill(Killed.ORPHANED)
        look = self.executing or self.slot.look()
        stack = self._stack()
        self.pipe.close()
        self.trace.close()
        self.process.close()
        return code, look, stack

    def _stack(self) -> str:
        """Return the stack that `faulthandler` has written."""
        # Do not wait: a process that a task forked may still hold the other end.
        os.set_blocking(self.trace.fileno(), False)
        try:
            return os.read(self.trace.fileno(), _STACK_BYTES_MAX).decode(errors="replace")
        except BlockingIOError:
            return ""


def make_slot(context: BaseContext) -> Slot:
    """Return a new slot.

    Raises:
        OSError: there is no room for it; says where.
    """
    try:
        return Slot(context)
    except OSError as error:
        state = _SHARED_MEMORY_STATES.get(error.errno or 0)
        if state is None:
            raise
        raise OSError(
            f"{_SHARED_MEMORY} {state}; a worker's processes have their locks and shared memory there: mount "
            "a tmpfs of some MiB on it (in containers `--shm-size` or `shm_size`), make room, or let this "
            "user write there"
        ) from None
