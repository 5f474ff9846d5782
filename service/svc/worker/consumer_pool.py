"""The pool of a worker's consumers: starts, counts and replaces them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.context import ForkServerContext, SpawnContext

import structlog

from svc.worker.child import Child
from svc.worker.consumer_exit import Ending, Reason, pause_before
from svc.worker.cpu import CpuCount
from svc.worker.offspring import ancestors
from svc.worker.options import ConfigureLogging, Connect, WorkerOptions
from svc.worker.shared_memory import require_shared_memory
from svc.worker.slot import Look, Phase

_STATES = {Phase.STARTING: "starting", Phase.BUSY: "busy"}


@dataclass(frozen=True, slots=True)
class WorkerSnapshot:
    """A worker at one moment, for its metrics.

    Attributes:
        name: the worker's name.
        host: the host's name.
        start_method: the method by which its consumers are started.
        consumers: the numbers of consumers that are `busy`, `idle` and `starting`.
        restarts: the number of replaced consumers, by reason: `crashed` (while a job executed), `timed_out`,
            `lost` (without a job, or with the forkserver), `renewed` (a task had changed its process) and
            `other` (could not start).
        busy_seconds: time that all consumers together have spent in tasks so far.
        cpu: the CPUs that determined the number of consumers.
        reconnects: how often the supervisor has made its connection again.
        draining: whether the worker takes no new jobs.
        connected: whether the manager answered the last request.
    """

    name: str
    host: str
    start_method: str
    consumers: Mapping[str, int]
    restarts: Mapping[str, int]
    busy_seconds: float
    cpu: CpuCount
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
        self.children: list[Child] = []
        self.restarts: Counter[str] = Counter()
        self.pilled = 0
        self.drained = 0
        self._options = options
        self._context = _context(options)
        self._log = structlog.get_logger()
        self._start_child: Callable[[str], Child] = lambda name: Child.start(
            self._context, options, name, connect, configure_logging
        )
        self._roll = threading.Lock()
        self._vacancies: list[float] = [0.0] * options.consumers
        self._started = 0
        self._start_failures = 0
        self._ended_busy_seconds = 0.0

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
        require_shared_memory(self._context)

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
            self._vacancies.append(now + pause_before(Reason.OTHER, self._start_failures))
            return
        with self._roll:
            self.children.append(child)

    def bury(self, child: Child, now: float) -> Ending:
        """Free the resources of an ended consumer; return its ending."""
        code, look, trace = child.bury()
        with self._roll:
            self.children.remove(child)
            self._ended_busy_seconds += _busy_seconds(look, now)
        ending = Ending(child.name, code, look, child.killed, now, trace)
        self.pilled += ending.pilled
        self.drained += ending.drained
        return ending

    def replace(self, ending: Ending) -> None:
        """Plan the replacement of a consumer, at once or after a pause."""
        reason = ending.reason
        self._start_failures = self._start_failures + 1 if reason is Reason.OTHER else 0
        self.restarts[reason.value] += 1
        self._vacancies.append(ending.at + pause_before(reason, self._start_failures))

    def names(self) -> list[str]:
        """Return the names of the current consumers. Thread-safe."""
        with self._roll:
            return [child.name for child in self.children]

    def consumer_above(self, pid: int) -> str:
        """Return the name of the consumer that is process *pid* or has started it, else "". Thread-safe."""
        with self._roll:
            consumers = {child.pid: child.name for child in self.children}
        return next((consumers[each] for each in ancestors(pid) if each in consumers), "")

    def count(self) -> tuple[dict[str, int], float]:
        """Return the number of consumers that are busy, idle and starting, and the seconds spent in tasks."""
        with self._roll:
            looks = [child.slot.look() for child in self.children]
            seconds = self._ended_busy_seconds
        now = time.monotonic()
        states = Counter(_STATES.get(look.phase, "idle") for look in looks)
        return (
            {state: states[state] for state in ("busy", "idle", "starting")},
            seconds + sum(_busy_seconds(look, now) for look in looks),
        )


def _busy_seconds(look: Look, now: float) -> float:
    return look.busy_seconds + (max(0.0, now - look.started) if look.busy else 0.0)


def _context(options: WorkerOptions) -> ForkServerContext | SpawnContext:
    if options.start_method == "spawn":
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload(list(options.preload))
    return context
