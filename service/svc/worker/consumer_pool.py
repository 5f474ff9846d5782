"""The pool of a worker's consumers: starts, counts and replaces them."""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext, SpawnContext

import structlog

from svc.errors import ConfigurationError
from svc.worker.consumer_exit import ConsumerExit, ReplacementReason, pause_before
from svc.worker.consumer_process import ConsumerProcess, make_slot
from svc.worker.offspring import adopts_orphans, ancestors, end_descendants
from svc.worker.options import ConfigureLogging, Connect, WorkerOptions
from svc.worker.process import forkserver_pid, helper_pids, reap_orphans
from svc.worker.slot import Phase, SlotState

_STATES = {Phase.STARTING: "starting", Phase.BUSY: "busy"}


@dataclass(frozen=True, slots=True)
class WorkerState:
    """A worker at one moment, for its metrics.

    Attributes:
        options: its settings.
        consumers: the numbers of consumers that are `busy`, `idle` and `starting`.
        restarts: the number of replaced consumers, by reason: `crashed` (while a job executed), `timed_out`,
            `lost` (without a job, or with the forkserver), `renewed` (a task had changed its process) and
            `other` (could not start).
        busy_seconds: time that all consumers together have spent in tasks so far.
        reconnects: how often the supervisor has made its connection again.
        draining: whether the worker takes no new jobs.
        connected: whether the manager answered the last request.
    """

    options: WorkerOptions
    consumers: Mapping[str, int]
    restarts: Mapping[str, int]
    busy_seconds: float
    reconnects: int
    draining: bool
    connected: bool


class ConsumerPool:
    """The consumer processes of a worker. One thread changes it, any thread may count.

    Args:
        options: the settings of the worker.
        connect: makes a consumer's connection.
        configure_logging: sets up a consumer's logging.

    Attributes:
        children: the current consumers.
        restarts: the number of replaced consumers, by reason.
        pilled: the number of consumers that ended by a pill.
        drained: the number of those that a drain ended and that are not replaced yet.
    """

    def __init__(self, options: WorkerOptions, connect: Connect, configure_logging: ConfigureLogging) -> None:
        self.children: list[ConsumerProcess] = []
        self.restarts: Counter[str] = Counter()
        self.pilled = 0
        self.drained = 0
        self._options = options
        self._context = _context(options)
        self._log = structlog.get_logger()
        self._start_child: Callable[[str], ConsumerProcess] = lambda name: ConsumerProcess.start(
            self._context, options, name, connect, configure_logging
        )
        self._lock = threading.Lock()
        self._vacancies: list[float] = [0.0] * options.consumers
        self._started = 0
        self._start_failures = 0
        self._ended_busy_seconds = 0.0
        self._adopts_orphans = adopts_orphans()

    @property
    def gone(self) -> bool:
        """Whether there is no consumer, and none will be started."""
        return not self.children and not self._vacancies

    def next_start(self) -> float | None:
        """Return the monotonic time at which the next consumer is started, or None."""
        return min(self._vacancies, default=None)

    def require_shared_memory(self) -> None:
        """See that consumers can be started at all.

        Raises:
            ConfigurationError: /dev/shm is missing, full or closed.
        """
        try:
            make_slot(self._context)
        except OSError as error:
            raise ConfigurationError(f"no consumer can be started: {error}") from None

    def close_vacancies(self) -> None:
        """Start no more consumers."""
        self._vacancies.clear()
        self.drained = 0

    def refill(self, now: float) -> int:
        """Plan replacements for the consumers that a drain has ended; return their number."""
        places, self.drained = self.drained, 0
        self._vacancies += [now] * places
        return places

    def fill_vacancies(self, now: float) -> None:
        """Start the consumers whose time has come."""
        due = [at for at in self._vacancies if at <= now]
        self._vacancies = [at for at in self._vacancies if at > now]
        for _ in due:
            self._start(now)

    def _start(self, now: float) -> None:
        # Names are never used twice: a late report about one consumer must not affect its replacement.
        self._started += 1
        name = f"{self._options.name}-{self._started}"
        try:
            child = self._start_child(name)
        except OSError as error:
            self._log.error("consumer_not_started", consumer=name, error=str(error))
            self._start_failures += 1
            self._vacancies.append(now + pause_before(ReplacementReason.OTHER, self._start_failures))
            return
        with self._lock:
            self.children.append(child)

    def reap(self, child: ConsumerProcess, now: float) -> ConsumerExit:
        """Free the resources of an ended consumer; return its exit."""
        code, look, trace = child.reap()
        with self._lock:
            self.children.remove(child)
            self._ended_busy_seconds += _busy_seconds(look, now)
        ended = ConsumerExit(child.name, code, look, child.killed, now, trace)
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
        if self._adopts_orphans:
            reap_orphans(self._own_pids())

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


def _busy_seconds(look: SlotState, now: float) -> float:
    return look.busy_seconds + (max(0.0, now - look.started) if look.busy else 0.0)


def _context(options: WorkerOptions) -> ForkServerContext | SpawnContext:
    if options.start_method == "spawn":
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(list(options.preload))
    return context
