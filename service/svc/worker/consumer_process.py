"""A consumer process as its supervisor sees it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from multiprocessing.process import BaseProcess

from svc.domain.commands import ClaimedJob, Recall
from svc.domain.replies import Extended, Stop
from svc.worker.cancelled_attempts import CancelledAttempts
from svc.worker.capture import CapturePipes, capture_pipes
from svc.worker.consumer_exit import Killed
from svc.worker.entry import consume
from svc.worker.memory import memory_of
from svc.worker.message_reader import MessageReader
from svc.worker.options import ConfigureLogging, Connect, WorkerOptions
from svc.worker.orders import FLUSH, STOP, has_room
from svc.worker.patience import LONG_SECONDS, Patience
from svc.worker.peak_memory import peak_of
from svc.worker.process import forkserver_pid, has_ended, interrupt, kill, main_hidden, signals_held_back
from svc.worker.shared_memory import make_slot
from svc.worker.slot import Order, Phase, Slot, SlotState
from svc.worker.stacks import StackReader

#: Seconds that a consumer is still watched closely after the last reason for it.
_WATCH_SECONDS = 1.0
#: Seconds that a consumer without a job or outcomes may take to leave.
_LEAVE_SECONDS = 2.0
#: Seconds that a job runs before its supervisor names it after a restart of the manager; by then, the jobs
#: behind it were taken back.
_CLAIM_SECONDS = 1.0
#: Seconds between two measurements of the memory of an attempt that has a limit.
_MEMORY_SECONDS = 0.1
#: Seconds beyond the grace of a cancel for which a consumer that runs several jobs may leave it unanswered,
#: and one that runs a list may still show its job: a kill costs the other jobs an attempt.
_SHARED_SECONDS, _LISTED_SECONDS = 0.3, 5.0
#: The exit code of a consumer if its forkserver could not report one, or if it really ended with it.
_UNTOLD = 255
#: Seconds that a forkserver may take to end after it has closed its files: the kernel does that first.
_FORKSERVER_SECONDS = 0.1


@dataclass(slots=True, eq=False)
class ConsumerProcess:
    """One consumer process, its slot and the pipe to it.

    Attributes:
        name: the consumer's name; no two processes of a worker ever have the same.
        killed: the reason if the supervisor or the end of the forkserver killed it; else None.
        output: the pipes with the output of its tasks; None if it is not captured.
        forkserver: the process that forked it and with which it dies; 0 if there is none.
        executing: the last look at its slot before it was killed.
        born: the monotonic time of its start.
        loaded: whether its tasks are loaded and the hooks of its start have returned.
        cancelled: the attempts that it has to end.
    """

    name: str
    process: BaseProcess
    slot: Slot
    pipe: Connection
    stacks: StackReader
    pid: int
    output: CapturePipes | None = None
    forkserver: int = 0
    killed: Killed | None = None
    executing: SlotState | None = None
    born: float = 0.0
    loaded: bool = False
    cancelled: CancelledAttempts = field(default_factory=CancelledAttempts)
    _leaving_since: float = 0.0
    _calls_hooks: bool = False
    _watched_until: float = 0.0
    _flushed: tuple[int, int] = field(default=(0, 0))
    #: The memory before the first job: pages of preloaded modules are no job's.
    _memory_before: int = 0
    _measured: tuple[int, int] = field(default=(0, 0))
    #: The most memory that was seen of the attempt that was measured last.
    _peak: int = 0
    _measured_at: float = 0.0
    _patience: Patience = field(default_factory=Patience)
    _reader: MessageReader = field(init=False)

    def __post_init__(self) -> None:
        """Begin to read the pipe."""
        self._reader = MessageReader(self.pipe)

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
        output, pipes = capture_pipes(context) if options.output_bytes else (None, None)
        process = context.Process(
            target=consume,
            name=name,
            args=(options, name, slot, theirs, written, connect, configure_logging, pipes),
        )
        try:
            with signals_held_back(), main_hidden():
                process.start()
        except BaseException as error:
            ours.close()
            trace.close()
            if output is not None:
                output.close()
            if not isinstance(error, EOFError):
                raise
            # The forkserver ends if it cannot fork; the next start makes another.
            raise OSError(
                "the forkserver ended before the process began; is there a bound on processes?"
            ) from None
        finally:
            theirs.close()
            written.close()
            slot.passed()
            if pipes is not None:
                pipes.close()
        forkserver = forkserver_pid() if context.get_start_method() == "forkserver" else 0
        pid, born = process.pid or 0, time.monotonic()
        return cls(name, process, slot, ours, StackReader(trace), pid, output, forkserver, born=born)

    def waitables(self) -> list[int | Connection]:
        """Return the objects that become readable when the process ends or sends a message."""
        pipes = [(self.pipe, self._reader.open), (self.stacks.pipe, self.stacks.open)]
        return [self.process.sentinel, *(pipe for pipe, is_open in pipes if is_open)]

    def next_check(self, now: float) -> float | None:
        """Return the monotonic time of a check that has to come in time, or None."""
        if self.stacks.asked_for and self.killed is None:
            return self.stacks.due
        return self._patience.look_at(self.slot.peek(), now) if self._watched_until else None

    def read(self, take: Callable[[bytes, bytes], bool]) -> None:
        """Give the messages of the process since the last call to *take*, as `MessageReader.read` says."""
        self._reader.read(take)

    def order(self, what: bytes) -> None:
        """Send an order to the process; if it has ended, the order is lost."""
        with contextlib.suppress(OSError):
            self.pipe.send_bytes(what)

    def obey(self, told: Extended, now: float) -> None:
        """Obey the orders in the manager's last answer, if they are for this process."""
        self._end_attempts(told.stops, now)
        for order in told.take_back:
            if order.consumer == self.name:
                self._patience.note(order, now)

    def _end_attempts(self, stops: Sequence[Stop], now: float) -> None:
        """Take from *stops* the attempts that this process has to end; each has its grace from now on."""
        if not (stops or self.cancelled):
            return
        self.cancelled.renew((stop for stop in stops if stop.consumer == self.name), now)
        # A process that holds the GIL reads none: they wait here, or the write would wait for it.
        if self.cancelled.unsent and has_room(self.pipe):
            self.order(self.cancelled.send(now))

    def _end_attempt(self, look: SlotState, now: float) -> None:
        """Have `Cancelled` raised in the task if its job is cancelled; kill the process after the grace."""
        if look.phase is Phase.SHARED:
            self._end_blocked(look, now)
            return
        attempt = (look.token, look.number)
        deadline = self.cancelled.deadline(attempt)
        if deadline is None:
            return
        if look.listed:
            # The consumer shows another one as soon as it hears of the cancel.
            if now > deadline + _LISTED_SECONDS:
                self._kill_in(attempt, Killed.CANCELLED)
        elif now < deadline:
            self.interrupt(Order.CANCEL, look)
        else:
            self._kill_in(attempt, Killed.CANCELLED)

    def _end_blocked(self, look: SlotState, now: float) -> None:
        """Kill the process if it has left a cancel unanswered: its event loop does not turn."""
        since = self.cancelled.unanswered_since()
        # An older order is answered as jobs begin to run side by side: from then on there is time for that.
        if since is not None and now > max(since, look.started) + _SHARED_SECONDS:
            self._kill_in((look.token, look.number), Killed.CANCELLED)

    def _kill_in(self, attempt: tuple[int, int], why: Killed) -> None:
        """Kill the process, unless *attempt* has ended meanwhile."""
        with self.slot.held():
            look = self.slot.peek()
            if look.busy and (look.token, look.number) == attempt:
                self.kill(why)

    def check(self, now: float, grace: float, import_timeout: float) -> Recall | None:
        """Act on the state of the job that it executes; return a report of jobs that it has to lose.

        *grace* and *import_timeout* are the worker's, in seconds.
        """
        look = self.slot.look()
        if self._reader.damaged or look.phase is Phase.DAMAGED:
            with self.slot.held():
                self.kill(Killed.DAMAGED)
            return None
        if self.cancelled and look.busy:
            self._end_attempt(look, now)
        if look.overrun(now):
            self._end_overrun(look, now)
            return None
        if self.stacks.asked_for:
            self.stacks.forget()
        if look.busy:
            return self._check_at_work(look, now)
        if self._lingers(look, now, grace):
            self.kill(Killed.LINGERED)
        elif not self.loaded and look.phase is Phase.STARTING and now - self.born > import_timeout:
            self.kill(Killed.HUNG)
        return None

    def _check_at_work(self, look: SlotState, now: float) -> Recall | None:
        if now - look.started >= LONG_SECONDS:
            if look.over_soft_timeout(now):
                self.interrupt(Order.SOFT_TIMEOUT, look)
            if look.max_rss:
                self._check_memory(look, now)
            self._flush(look)
        due = look.reads_ahead and now >= self._patience.ends_at(look, now)
        return self._take_back(now) if due else None

    def _end_overrun(self, look: SlotState, now: float) -> None:
        """Ask the process for its stacks, and kill it a moment later; its outcome counts no more by then."""
        if self.stacks.asked_for == (look.token, look.number) and self.stacks.are_awaited(now):
            return
        # The slot is held meanwhile, or the consumer could begin another job just before it dies.
        with self.slot.held():
            look = self.slot.peek()
            if look.overrun(now) and self.stacks.asked_for == (look.token, look.number):
                self.kill(Killed.TIMED_OUT)
            elif look.overrun(now):
                self.slot.give_order(Order.KILL)
                self.stacks.ask(self.pid, (look.token, look.number), now)

    def interrupt(self, order: Order, attempt: SlotState) -> None:
        """Have an exception raised in the task, unless *attempt* has ended; call it until that has an end."""
        with self.slot.held() as held:
            look = self.slot.peek()
            same = look.busy and (look.token, look.number) == (attempt.token, attempt.number)
            if held and same and self.slot.give_order(order):
                interrupt(self.pid)

    def began(self) -> None:
        """Note that it is ready for its first job."""
        self.loaded = True
        self._memory_before = memory_of(self.pid)

    def _check_memory(self, look: SlotState, now: float) -> None:
        """Measure the memory of the attempt if that is due, and kill the process if it is too much."""
        attempt = (look.token, look.number)
        if attempt == self._measured and now < self._measured_at + _MEMORY_SECONDS:
            return
        used = max(0, memory_of(self.pid) - self._memory_before)
        self._note_peak(look, used)
        self._measured_at = now
        if used > look.max_rss:
            self._kill_in(attempt, Killed.MEMORY)

    def _note_peak(self, look: SlotState, used: int) -> None:
        """Note that the attempt at *look* has taken so much memory."""
        self._peak = max(self.peak_of(look), used)
        self._measured = (look.token, look.number)

    def _flush(self, look: SlotState) -> None:
        """Order it to send finished outcomes that wait behind a long job; once for each job."""
        if look.unsent and self._flushed != (look.token, look.number):
            self._flushed = (look.token, look.number)
            self.order(FLUSH)

    def _take_back(self, now: float) -> Recall | None:
        """Take back the jobs that it has read ahead if the one that runs has held them up for long enough."""
        look = self._patience.take_back(self.slot, now)
        # The supervisor does not know the leases that may be on their way.
        return None if look is None else Recall(self.name, look.token, look.number, look.last, look.asks)

    def claim(self, now: float) -> ClaimedJob | None:
        """Return the job that it executes, if its task may keep it from naming its leases to the manager.

        Of several jobs that run together, none is named.
        """
        look = self.slot.look()
        alone = look.phase is Phase.BUSY and (look.recalled or not look.reads_ahead)
        if not alone or now - look.started < _CLAIM_SECONDS:
            return None
        return ClaimedJob(self.name, look.token, look.origin, look.number)

    def kill(self, why: Killed) -> None:
        """Kill the process; remember the reason and its last look. Hold the slot if it might go on."""
        if self.killed is None:
            self.killed = why
            self.executing = self.slot.peek()
            if self.executing.busy and not self.executing.shared:
                self._note_peak(self.executing, peak_of(self.pid) if why is not Killed.MEMORY else 0)
        kill(self.pid)

    def peak_of(self, look: SlotState) -> int:
        """Return the most memory in bytes that was seen of the attempt at *look*, 0 if none was."""
        return self._peak if (look.token, look.number) == self._measured else 0

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
        if self.cancelled:
            return True  # it may be about to begin one of them
        flushable = look.unsent and self._flushed != (look.token, look.number)
        limited = look.timeout > 0 or look.soft_timeout > 0 or look.max_rss > 0
        return look.busy and (limited or flushable or (look.reads_ahead and not look.recalled))

    def stop(self) -> None:
        """Order it to finish its job and leave."""
        self._leaving_since = self._leaving_since or time.monotonic()
        self.order(STOP)

    def note_ending(self, now: float) -> None:
        """Note that it has left the manager, and calls the hooks of its end."""
        self._leaving_since, self._calls_hooks = now, True

    def _lingers(self, look: SlotState, now: float, grace: float) -> bool:
        """Whether it was ordered to leave and is still there for no good reason.

        Without a job and outcomes it has a short time: it may be waiting for a manager that is away. After
        its pill, if it leaves by itself, and for the hooks of its end, it has the *grace*.
        """
        by_itself = look.phase in (Phase.PILLED, Phase.DRAINED, Phase.RENEWING)
        if by_itself:
            self._leaving_since = self._leaving_since or now
        if not self._leaving_since or look.busy:
            return False
        patient = look.unsent or by_itself or self._calls_hooks
        return now - self._leaving_since > (grace if patient else _LEAVE_SECONDS)

    def ended(self, ready: Collection[object]) -> bool:
        """Whether the process has ended; *ready* are those of the `waitables` that became readable."""
        # To ask a forkserver for the exit code takes 50 µs, and it knows it by the sentinel.
        asks = not self.forkserver or self.process.sentinel in ready
        return asks and self.process.exitcode is not None

    def was_cancelled(self, look: SlotState) -> bool:
        """Return whether the job that executes at *look* is cancelled."""
        return look.busy and (look.token, look.number) in self.cancelled

    def reap(self) -> tuple[int, SlotState, str]:
        """Free the resources of the process; return its exit code, last look, and stacks."""
        self.process.join()
        code = self.process.exitcode or 0
        if code == _UNTOLD and self.forkserver and has_ended(self.forkserver, _FORKSERVER_SECONDS):
            # A consumer dies with its forkserver, as far as the kernel can do that: make sure of it.
            with self.slot.held():
                self.kill(Killed.ORPHANED)
        look = self.executing or self.slot.look()
        overrun = look.busy and self.stacks.asked_for == (look.token, look.number)
        if overrun and self.killed is None:
            # It did not outlive the signal for its stacks: its task has taken that for itself.
            self.killed = Killed.TIMED_OUT
        timed_out = self.killed is Killed.TIMED_OUT
        stacks = self.stacks.of_the_attempt() if timed_out else self.stacks.of_the_crash()
        self.pipe.close()
        self.stacks.pipe.close()
        self.process.close()
        return code, look, stacks
