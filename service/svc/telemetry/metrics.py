"""The manager's metrics. Only the manager sees every change of every job's state, so only it counts jobs.

The manager's loop reports events to `ManagerMetrics` (see `domain.observer`), and also makes the exposition.
"""

from __future__ import annotations

import platform
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeVar

from svc.domain.job import DEFAULT_QUEUE, Cause, Terms
from svc.domain.observer import Observer
from svc.domain.replies import QueueStats, Totals
from svc.telemetry.catalogue import (
    CALL_RESULTS,
    FINAL_OUTCOMES,
    JOB_SECONDS,
    KEY_ROLES,
    MANAGER_SECONDS,
    OTHER,
    OUTCOMES,
    PAYLOAD_BYTES,
    QUEUE_STATES,
    RECORDS,
    RECOVERY_PLACES,
    REFUSALS,
    REJECTIONS,
)
from svc.telemetry.counting import Histogram, Labels
from svc.telemetry.exposition import Family, Sample, counter, gauge, histogram, of_this_process

T = TypeVar("T")
K = TypeVar("K")

_OUTCOME_OF = {
    Cause.FAILED: "failed",
    Cause.TIMED_OUT: "timed_out",
    Cause.CRASHED: "crashed",
    Cause.REFUSED: "refused",
    Cause.INTERRUPTED: "released",
    Cause.SUSPECTED: "suspected",
}


@dataclass(frozen=True, slots=True)
class Build:
    """The values of `svc_build_info`: the releases of svc and of SQLite, and the engine."""

    version: str = ""
    sqlite: str = ""
    engine: str = "manager"


class _JobSeries:
    """The numbers of one queue and task."""

    __slots__ = (
        "exceptions",
        "finished",
        "name",
        "outcomes",
        "requeued",
        "retries",
        "run",
        "started",
        "submitted",
        "total",
        "wait",
    )

    def __init__(self, name: str) -> None:
        self.name = name
        self.submitted = self.started = self.retries = self.requeued = 0
        self.outcomes = dict.fromkeys(OUTCOMES, 0)
        self.finished = dict.fromkeys(FINAL_OUTCOMES, 0)
        self.exceptions: dict[str, int] = {}
        self.wait = Histogram(JOB_SECONDS)
        self.run = Histogram(JOB_SECONDS)
        self.total = Histogram(JOB_SECONDS)


class _QueueSeries:
    """The numbers of one queue."""

    __slots__ = ("expiries", "payload", "rejected", "stale")

    def __init__(self) -> None:
        self.expiries = self.stale = 0
        self.rejected = dict.fromkeys(REJECTIONS, 0)
        self.payload = Histogram(PAYLOAD_BYTES)


class _MethodSeries:
    """The numbers of one remote method."""

    __slots__ = ("results", "seconds")

    def __init__(self) -> None:
        self.results = dict.fromkeys(CALL_RESULTS, 0)
        self.seconds = Histogram(MANAGER_SECONDS)


class _Backlog:
    """The backlog of one queue, or of all queues that share the name `other`."""

    __slots__ = ("jobs", "oldest", "running", "unknown")

    def __init__(self) -> None:
        self.jobs = dict.fromkeys(QUEUE_STATES, 0)
        self.oldest = self.running = 0.0
        self.unknown = 0

    def add(self, stats: QueueStats) -> None:
        for state in QUEUE_STATES:
            self.jobs[state] += getattr(stats, state)
        self.oldest = max(self.oldest, stats.oldest)
        self.running = max(self.running, stats.oldest_running)
        self.unknown += stats.unknown_tasks


class ManagerMetrics(Observer):
    """Counts the events of the manager.

    The observer's methods are called only in the manager's thread, with two exceptions: any thread may call
    `connected` and `authentication_failed`. Any thread may also call `mean_run_seconds` and `collect`.
    """

    def __init__(self, build: Build | None = None, queues: Iterable[str] = (DEFAULT_QUEUE,)) -> None:
        """Start all counters at 0, including those of *queues*, so that `rate()` sees their first event."""
        self._build = build or Build()
        self._labels = Labels()
        self._jobs: dict[tuple[str, str], _JobSeries] = {}
        self._queues: dict[str, _QueueSeries] = {}
        self._methods: dict[str, _MethodSeries] = {}
        self._turn_seconds = Histogram(MANAGER_SECONDS)
        self._longest_turn = 0.0
        self._longest_turn_of: dict[tuple[str, str], float] = {("none", "none"): 0.0}
        self._refusals: dict[tuple[str, str], float] = dict.fromkeys(product(REFUSALS, KEY_ROLES), 0)
        self._commit_seconds = Histogram(MANAGER_SECONDS)
        self._commit_records = Histogram(RECORDS)
        self._broken = dict.fromkeys(RECOVERY_PLACES, 0)
        self._recovered_jobs = 0
        self._recovery_seconds = 0.0
        #: Memory in use, its limit, and 1 if new jobs are refused because of it.
        self._memory: tuple[float, float, float] = (0, 0, 0)
        self._handshakes = threading.Lock()
        self._connections = 0
        self._authentication_failures = 0
        for queue in queues:
            self._queue(queue)

    # --- the observer's methods ---------------------------------------------------------------------

    def submitted(self, terms: Terms, count: int, size: int) -> None:
        """Count accepted jobs and their size."""
        self._series(terms).submitted += count
        self._queue(terms.queue).payload.observe(size / max(count, 1), count)

    def rejected(self, queue: str, reason: str, count: int) -> None:
        """Count refused jobs."""
        rejected = self._queue(queue or OTHER).rejected
        rejected[reason if reason in rejected else OTHER] += count

    def started(self, terms: Terms, count: int, waited: float) -> None:
        """Count started jobs, and the time that they waited."""
        series = self._series(terms)
        series.started += count
        series.wait.observe(waited, count)

    def succeeded(self, terms: Terms, seconds: Sequence[float], age: float) -> None:
        """Count results, with their run times and total times."""
        series, count = self._series(terms), len(seconds)
        series.outcomes["succeeded"] += count
        series.finished["succeeded"] += count
        series.run.observe_all(seconds)
        series.total.observe(age, count)

    def failed(
        self, terms: Terms, cause: Cause, error_type: str, seconds: float, retried: bool, age: float
    ) -> None:
        """Count an attempt without a result, and the retry or dead job that follows."""
        series = self._series(terms)
        series.outcomes[_OUTCOME_OF[cause]] += 1
        series.run.observe(seconds)
        if error_type not in series.exceptions:
            error_type = self._labels.fold("exception", error_type, of=series.name)
        series.exceptions[error_type] = series.exceptions.get(error_type, 0) + 1
        if retried:
            series.retries += 1
        else:
            series.finished["dead"] += 1
            series.total.observe(age)

    def released(self, terms: Terms, count: int) -> None:
        """Count jobs that a consumer gave back."""
        self._series(terms).outcomes["released"] += count

    def expired(self, terms: Terms, count: int) -> None:
        """Count jobs whose lease expired."""
        self._series(terms).outcomes["lost"] += count
        self._queue(terms.queue).expiries += count

    def cancelled(self, terms: Terms, count: int) -> None:
        """Count cancelled jobs."""
        self._series(terms).finished["cancelled"] += count

    def requeued(self, terms: Terms, count: int) -> None:
        """Count dead jobs that were re-queued."""
        self._series(terms).requeued += count

    def stale(self, queue: str, count: int) -> None:
        """Count outcomes that came too late; *queue* is empty if the job is already forgotten."""
        self._queue(queue or OTHER).stale += count

    def committed(self, records: int, seconds: float) -> None:
        """Count a commit."""
        self._commit_records.observe(records)
        self._commit_seconds.observe(seconds)

    def turned(self, seconds: float) -> None:
        """Count a turn of the loop."""
        self._turn_seconds.observe(seconds)
        self._longest_turn = max(self._longest_turn, seconds)

    def memory(self, used: int, limit: int, scarce: bool) -> None:
        """Remember how much memory is in use."""
        self._memory = used, limit, float(scarce)

    def longest_turn(self, processor_seconds: float, part: str, role: str) -> None:
        """Keep the processor time of the turn that took most, and its longest part and role."""
        self._longest_turn_of = {(part, role): processor_seconds}

    def refused(self, kind: str, role: str) -> None:
        """Count a refusal; there are few kinds and roles, and only the manager defines them."""
        self._refusals[kind, role] = self._refusals.get((kind, role), 0) + 1

    def called(self, method: str, result: str, seconds: float) -> None:
        """Count a request."""
        series = self._methods.get(method)
        if series is None:
            name = self._labels.fold("method", method)
            series = self._methods.get(name) or self._methods.setdefault(name, _MethodSeries())
        series.results[result] += 1
        series.seconds.observe(seconds)

    def connected(self, delta: int) -> None:
        """Add *delta* to the number of open connections."""
        with self._handshakes:
            self._connections += delta

    def authentication_failed(self) -> None:
        """Count a refused handshake."""
        with self._handshakes:
            self._authentication_failures += 1

    def recovered(self, jobs: int, seconds: float) -> None:
        """Remember the last recovery."""
        self._recovered_jobs = jobs
        self._recovery_seconds = seconds

    def broke(self, place: str) -> None:
        """Count a broken state."""
        self._broken[place] += 1

    # --- series -------------------------------------------------------------------------------------

    def mean_run_seconds(self) -> dict[str, float]:
        """Return the mean run time of all attempts so far, for each queue with attempts."""
        counts: dict[str, int] = {}
        sums: dict[str, float] = {}
        for (queue, _), series in _items(self._jobs):
            counts[queue] = counts.get(queue, 0) + series.run.count
            sums[queue] = sums.get(queue, 0.0) + series.run.sum
        return {queue: sums[queue] / count for queue, count in counts.items() if count}

    def _series(self, terms: Terms) -> _JobSeries:
        name = terms.shown_task if terms.label else terms.task
        series = self._jobs.get((terms.queue, name))
        if series is None:
            queue = self._labels.fold("queue", terms.queue)
            task = self._labels.fold("task", name, of=queue)
            series = self._jobs.get((queue, task))
            if series is None:
                series = self._jobs.setdefault((queue, task), _JobSeries(f"{queue} {task}"))
        return series

    def _queue(self, queue: str) -> _QueueSeries:
        series = self._queues.get(queue)
        if series is None:
            name = self._labels.fold("queue", queue)
            series = self._queues.get(name) or self._queues.setdefault(name, _QueueSeries())
        return series

    # --- the exposition -----------------------------------------------------------------------------

    def collect(self, totals: Totals) -> Iterator[Family]:
        """Yield all metrics as text, with those of this process near the end."""
        began = time.perf_counter()
        yield from self._collect_jobs()
        yield from self._collect_queues(totals)
        yield from _collect_members(totals)
        yield from self._collect_manager(totals)
        yield from self._collect_journal(totals)
        yield counter("svc_label_overflow_total", (((label,), n) for label, n in self._labels.overflow()))
        yield gauge("svc_build_info", [(self._build_labels(), 1)])
        yield from of_this_process()
        yield gauge("svc_collector_seconds", [((), time.perf_counter() - began)])

    def _collect_jobs(self) -> Iterator[Family]:
        jobs = _items(self._jobs)
        yield counter("svc_jobs_submitted_total", ((key, one.submitted) for key, one in jobs))
        yield counter("svc_jobs_started_total", ((key, one.started) for key, one in jobs))
        yield counter("svc_job_attempts_total", _split(jobs, lambda one: one.outcomes))
        yield counter("svc_job_retries_total", ((key, one.retries) for key, one in jobs))
        yield counter("svc_jobs_finished_total", _split(jobs, lambda one: one.finished))
        yield counter("svc_jobs_requeued_total", ((key, one.requeued) for key, one in jobs))
        yield counter("svc_job_exceptions_total", _split(jobs, lambda one: one.exceptions))
        yield histogram("svc_job_queue_wait_seconds", ((key, one.wait) for key, one in jobs))
        yield histogram("svc_job_run_seconds", ((key, one.run) for key, one in jobs))
        yield histogram("svc_job_total_seconds", ((key, one.total) for key, one in jobs))

    def _collect_queues(self, totals: Totals) -> Iterator[Family]:
        for stats in totals.queues:
            if not self._labels.is_full("queue"):
                self._queue(stats.name)
        queues = [((name,), series) for name, series in _items(self._queues)]
        yield counter("svc_jobs_rejected_total", _split(queues, lambda one: one.rejected))
        yield histogram("svc_job_payload_bytes", ((key, one.payload) for key, one in queues))
        yield counter("svc_lease_expiries_total", ((key, one.expiries) for key, one in queues))
        yield counter("svc_stale_acks_total", ((key, one.stale) for key, one in queues))
        yield from self._collect_backlog(totals.queues)

    def _collect_backlog(self, queues: Sequence[QueueStats]) -> Iterator[Family]:
        backlogs = {name: _Backlog() for name in list(self._queues)}
        for stats in queues:
            backlog = backlogs.get(stats.name) or backlogs.get(OTHER)
            if backlog is None:
                backlog = backlogs[OTHER] = _Backlog()
            backlog.add(stats)
        rows = [((name,), backlog) for name, backlog in backlogs.items()]
        yield gauge("svc_queue_jobs", _split(rows, lambda one: one.jobs))
        yield gauge("svc_queue_oldest_job_age_seconds", ((key, one.oldest) for key, one in rows))
        yield gauge("svc_queue_oldest_running_seconds", ((key, one.running) for key, one in rows))
        yield gauge("svc_queue_unknown_tasks", ((key, one.unknown) for key, one in rows))

    def _collect_manager(self, totals: Totals) -> Iterator[Family]:
        methods = [((name,), series) for name, series in _items(self._methods)]
        yield counter("svc_manager_calls_total", _split(methods, lambda one: one.results))
        yield histogram("svc_manager_call_seconds", ((key, one.seconds) for key, one in methods))
        yield histogram("svc_manager_turn_seconds", [((), self._turn_seconds)])
        yield gauge("svc_manager_longest_turn_seconds", [((), self._longest_turn)])
        yield gauge("svc_manager_longest_turn_processor_seconds", self._longest_turn_of.items())
        yield counter("svc_manager_refusals_total", list(self._refusals.items()))
        yield gauge("svc_manager_connections", [((), self._connections)])
        yield counter("svc_manager_auth_failures_total", [((), self._authentication_failures)])
        yield counter("svc_manager_recoveries_total", _by_name(self._broken))
        yield gauge("svc_manager_uptime_seconds", [((), totals.uptime)])
        used, limit, refusing = self._memory
        yield gauge("svc_manager_memory_bytes", [((), used)])
        yield gauge("svc_manager_memory_limit_bytes", [((), limit)])
        yield gauge("svc_manager_memory_refusing", [((), refusing)])

    def _collect_journal(self, totals: Totals) -> Iterator[Family]:
        yield histogram("svc_journal_commit_seconds", [((), self._commit_seconds)])
        yield histogram("svc_journal_commit_records", [((), self._commit_records)])
        yield gauge("svc_journal_size_bytes", [((), totals.journal_bytes)])
        yield gauge("svc_journal_recovered_jobs", [((), self._recovered_jobs)])
        yield gauge("svc_journal_recovery_seconds", [((), self._recovery_seconds)])

    def _build_labels(self) -> tuple[str, ...]:
        return (self._build.version, platform.python_version(), self._build.sqlite, self._build.engine)


def _collect_members(totals: Totals) -> Iterator[Family]:
    yield gauge("svc_workers", [((), totals.workers)])
    states = {"busy": totals.busy, "idle": max(0, totals.consumers - totals.busy)}
    yield gauge("svc_consumers", _by_name(states))
    yield gauge("svc_draining", [((), float(totals.drain != 0))])
    yield gauge("svc_drained_workers", [((), len(totals.drained_workers))])
    yield gauge("svc_manager_clock_offset_seconds", [((), totals.clock_offset)])
    yield gauge("svc_manager_clock_held", [((), float(totals.clock_held))])


def _items(numbers: Mapping[K, T]) -> list[tuple[K, T]]:
    # A single step of the interpreter, since the manager's thread may add to *numbers* meanwhile.
    return list(numbers.items())


def _by_name(numbers: Mapping[str, float]) -> Iterator[Sample]:
    return (((name,), number) for name, number in numbers.items())


def _split(
    series: Iterable[tuple[tuple[str, ...], T]], part: Callable[[T], Mapping[str, float]]
) -> Iterator[Sample]:
    for key, one in series:
        for value, number in _items(part(one)):
            yield (*key, value), number
