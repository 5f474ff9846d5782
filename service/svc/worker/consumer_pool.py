"""The pool of a worker's consumers: starts, counts and replaces them."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext, SpawnContext

import structlog

from svc.domain.commands import ClaimedJob
from svc.domain.field_bounds import HELD_MAX
from svc.errors import ConfigurationError
from svc.worker.consumer_exit import ConsumerExit, Killed, ReplacementReason, pause_before
from svc.worker.consumer_process import ConsumerProcess
from svc.worker.control_group import ControlGroup
from svc.worker.offspring import adopts_orphans, ancestors, end_descendants
from svc.worker.options import ConfigureLogging, Connect, WorkerOptions
from svc.worker.output_reader import OutputReader
from svc.worker.preloading import Preloading, modules_to_fork_from
from svc.worker.process import end_retired, forkserver_pid, helper_pids, reap_orphans, signals_held_back
from svc.worker.shared_memory import make_slot
from svc.worker.slot import Phase, SlotState
from svc.worker.stopped_forkservers import StoppedForkservers, end_if_stopped

_STATES = {Phase.STARTING: "starting", Phase.BUSY: "busy", Phase.SHARED: "busy", Phase.LISTED: "busy"}


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A worker at one moment, for its metrics.

    Attributes:
        options: its settings.
        consumers: the numbers of consumers that are `busy`, `idle` and `starting`.
        restarts: the number of replaced consumers, by reason: `crashed` (while a job executed), `timed_out`,
            `memory` (a job took more than it may), `cancelled` (a cancelled job did not end), `lost` (without
            a job, or with the forkserver), `renewed` (a task had changed its process, or was interrupted),
            `recycled` (it was worn) and `other` (could not start).
        busy_seconds: time that all consumers together have spent in tasks so far.
        reconnects: how often the supervisor has made its connection again.
        draining: whether the worker takes no new jobs.
        connected: whether the manager answered the last request.
        output_dropped: bytes of output that were dropped because the manager was away.
        round_trip: seconds of a request that the manager answers at once; 0 if none was measured.
    """

    options: WorkerOptions
    consumers: Mapping[str, int]
    restarts: Mapping[str, int]
    busy_seconds: float
    reconnects: int
    draining: bool
    connected: bool
    output_dropped: int
    round_trip: float


class ConsumerPool:
    """The consumer processes of a worker. One thread changes it, any thread may count.

    Args:
        options: the settings of the worker.
        connect: makes a consumer's connection.
        configure_logging: sets up a consumer's logging.
        wake: called from a thread if `fill_vacancies` has to be called again soon.
        outputs: reads the output of consumers.

    Attributes:
        children: the current consumers.
        restarts: the number of replaced consumers, by reason.
        pilled: the number of consumers that ended by a pill.
        drained: the number of those that a drain ended and that are not replaced yet.
    """

    def __init__(
        self,
        options: WorkerOptions,
        connect: Connect,
        configure_logging: ConfigureLogging,
        wake: Callable[[], None] = lambda: None,
        outputs: OutputReader | None = None,
    ) -> None:
        self.children: list[ConsumerProcess] = []
        self.restarts: Counter[str] = Counter()
        self.pilled = 0
        self.drained = 0
        self._options = options
        self._context = _context(options)
        self._preloading = _preloading(self._context, options, wake)
        self._outputs = outputs
        self._log = structlog.get_logger()
        self._stopped_forkservers = StoppedForkservers(self._log)
        self._start_child: Callable[[str], ConsumerProcess] = lambda name: ConsumerProcess.start(
            self._context, options, name, connect, configure_logging
        )
        self._lock = threading.Lock()
        self._vacancies: list[float] = [0.0] * options.consumers
        self._started = 0
        self._start_failures = 0
        self._retry_at = 0.0
        self._ended_busy_seconds = 0.0
        self._adopts_orphans = adopts_orphans()

    @property
    def gone(self) -> bool:
        """Whether there is no consumer, and none will be started."""
        return not self.children and not self._vacancies

    def next_start(self) -> float | None:
        """Return the monotonic time at which the next consumer is started, or None."""
        if self._preloading is not None and self._preloading.waits:
            return self._preloading.deadline
        return min(self._vacancies, default=None)

    def require_shared_memory(self) -> None:
        """See that consumers can be started at all.

        Raises:
            ConfigurationError: /dev/shm is missing, full or closed.
        """
        try:
            # Its lock starts a tracker of multiprocessing, which unblocks the signals of this thread; threads
            # that start later would inherit that, and take signals for which another one waits.
            with signals_held_back():
                make_slot(self._context)
        except OSError as error:
            raise ConfigurationError(f"no consumer can be started: {error}") from None

    def close_vacancies(self) -> None:
        """Start no more consumers."""
        self._vacancies.clear()
        self.drained = 0
        if self._preloading is not None:
            self._preloading.abandon()

    def refill(self, now: float) -> int:
        """Plan replacements for the consumers that a drain has ended; return their number."""
        places, self.drained = self.drained, 0
        self._vacancies += [now] * places
        return places

    def fill_vacancies(self, now: float) -> None:
        """Start the consumers whose time has come.

        Raises:
            ConfigurationError: the modules of --preload cannot be imported, and no consumer ever was started.
        """
        if not self._vacancies or min(self._vacancies) > now or not self._may_fork(now):
            return
        due = [at for at in self._vacancies if at <= now]
        self._vacancies = [at for at in self._vacancies if at > now]
        for _ in due:
            if self._start(now) is None:
                self._vacancies.append(self._retry_at)

    def start_another(self, now: float) -> ConsumerProcess | None:
        """Start and return a consumer beside the others, or return None if that is not possible yet."""
        return self._start(now) if self._may_fork(now) else None

    def renew_forkserver(self) -> None:
        """Have the preloaded modules imported again for the consumers that are started from now on."""
        if self._preloading is not None:
            self._preloading.renew()

    def _may_fork(self, now: float) -> bool:
        """Whether the forkserver has imported the user's modules."""
        if self._preloading is None:
            return True
        try:
            return self._preloading.is_ready(now)
        except RuntimeError as error:
            if not self._started:
                raise ConfigurationError(str(error)) from None
            later = self._not_started(self._options.name, str(error), now)
            self._vacancies = [max(at, later) for at in self._vacancies]
            return False
        finally:
            if self._preloading.threads:
                self._log.warning("preload_started_threads", threads=self._preloading.threads)
                self._preloading.threads = ""

    def _not_started(self, name: str, error: str, now: float) -> float:
        """Log that a consumer could not be started; return the time of the next attempt."""
        self._log.error("consumer_not_started", consumer=name, error=error)
        self._start_failures += 1
        return now + pause_before(ReplacementReason.OTHER, self._start_failures)

    def _start(self, now: float) -> ConsumerProcess | None:
        """Start a consumer; if it cannot be started, return None and set `_retry_at`."""
        # Names are never used twice: a late report about one consumer must not affect its replacement.
        self._started += 1
        name = f"{self._options.name}-{self._started}"
        try:
            child = self._start_child(name)
        except OSError as error:
            self._retry_at = self._not_started(name, str(error), now)
            return None
        if self._outputs is not None:
            self._outputs.add(child.output, child.slot)
        with self._lock:
            self.children.append(child)
        return child

    def reap(self, child: ConsumerProcess, now: float) -> ConsumerExit:
        """Free the resources of an ended consumer; return its exit."""
        code, look, stacks = child.reap()
        if self._options.control_group:
            ControlGroup(self._options.control_group, child.pid).end()
        if self._outputs is not None:
            self._outputs.remove(child.output)
        with self._lock:
            self.children.remove(child)
            self._ended_busy_seconds += _busy_seconds(look, now)
        child.slot.close()
        ended = ConsumerExit(
            child.name, code, look, child.killed, now, stacks, child.peak_of(look), child.was_cancelled(look)
        )
        self.pilled += ended.pilled
        self.drained += ended.drained
        return ended

    def end_orphans(self, forkserver: int) -> None:
        """End processes whose consumer is gone: their parent is now its forkserver, or this process."""
        if forkserver and forkserver == forkserver_pid():
            end_descendants(forkserver, spare={child.pid for child in self.children})
        if self._adopts_orphans:
            end_descendants(os.getpid(), spare=self._own_pids())

    def reap_orphans(self) -> None:
        """Collect ended processes that became children of this one, because it adopts orphans."""
        end_retired({child.forkserver for child in self.children})
        if self._adopts_orphans:
            reap_orphans(self._own_pids())

    def end_stopped(self, now: float) -> None:
        """End the forkservers that a task has stopped, so that their consumers are replaced."""
        servers = {child.forkserver for child in self.children} | {forkserver_pid()}
        self._stopped_forkservers.look(servers - {0}, now)

    def end_wait_for_forkserver(self) -> None:
        """See that a start of a consumer does not wait for ever for a stopped forkserver. Thread-safe."""
        end_if_stopped(forkserver_pid())

    def _own_pids(self) -> set[int]:
        return helper_pids() | {child.pid for child in self.children}

    def replace(self, ended: ConsumerExit) -> None:
        """Plan the replacement of a consumer, at once or after a pause."""
        reason = ended.reason
        self._start_failures = self._start_failures + 1 if reason is ReplacementReason.OTHER else 0
        self.restarts[reason.value] += 1
        self._vacancies.append(ended.at + pause_before(reason, self._start_failures))

    def names(self) -> list[str]:
        """Return the names of the current consumers. Thread-safe."""
        with self._lock:
            return [child.name for child in self.children]

    def end_offender(self, name: str) -> dict[str, str]:
        """End a consumer whose task has told the worker to stop: that is for operators.

        Return the fields of the log that name its job, if no other one executes beside it.
        """
        for child in self.children:
            if child.name == name:
                with child.slot.held():
                    look = child.slot.peek()
                    if look.busy:
                        child.kill(Killed.OFFENDED)
                return {} if look.shared else look.names
        return {}

    def consumer_above(self, pid: int) -> str:
        """Return the name of the consumer that is process *pid* or has started it, else "". Thread-safe."""
        with self._lock:
            consumers = {child.pid: child.name for child in self.children}
        return next((consumers[each] for each in ancestors(pid) if each in consumers), "")

    def count(self) -> tuple[dict[str, int], float]:
        """Return the number of consumers that are busy, idle and starting, and the seconds spent in tasks."""
        with self._lock:
            looks = [child.slot.look() for child in self.children]
            seconds = self._ended_busy_seconds
        now = time.monotonic()
        states = Counter(_STATES.get(look.phase, "idle") for look in looks)
        return (
            {state: states[state] for state in ("busy", "idle", "starting")},
            seconds + sum(_busy_seconds(look, now) for look in looks),
        )

    def claims(self) -> list[ClaimedJob]:
        """Return the jobs of consumers that may not be able to name them to the manager. Thread-safe."""
        now = time.monotonic()
        with self._lock:
            found = (child.claim(now) for child in self.children)
            return list(islice((each for each in found if each is not None), HELD_MAX))


def _busy_seconds(look: SlotState, now: float) -> float:
    return look.busy_seconds + (max(0.0, now - look.started) if look.busy else 0.0)


def _context(options: WorkerOptions) -> ForkServerContext | SpawnContext:
    if options.start_method == "spawn":
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload([*modules_to_fork_from(options.preload, options.user_preload)])
    return context


def _preloading(
    context: ForkServerContext | SpawnContext, options: WorkerOptions, wake: Callable[[], None]
) -> Preloading | None:
    if not options.user_preload or not isinstance(context, ForkServerContext):
        return None
    own = modules_to_fork_from(options.preload, options.user_preload)
    return Preloading(context, own, options.user_preload, options.import_timeout, wake)
