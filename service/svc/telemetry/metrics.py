"""The numbers behind the metrics: a registry made from the catalogue, and what counts the manager's events.

Only the manager sees every change of every job's state, so only it counts jobs. Its loop reports events to
`ManagerMetrics` (see `domain.observer`), and also makes the exposition.
"""

from __future__ import annotations

import math
import platform
import threading
import time
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, product

from svc.domain.job import DEFAULT_QUEUE, Cause, Terms
from svc.domain.observer import Observer
from svc.domain.replies import QueueStats, Totals
from svc.telemetry.catalogue import MANAGER_METRICS, Metric
from svc.telemetry.exposition import histogram_family, number_family, of_this_process
from svc.telemetry.label_values import OTHER, REFUSALS
from svc.telemetry.labels import Labels

#: The largest observation, in seconds or bytes (31,000 years; a terabyte), so that every sum stays finite.
OBSERVATION_MAX = 1e12

_OUTCOME_OF = {
    Cause.FAILED: "failed",
    Cause.TIMED_OUT: "timed_out",
    Cause.CRASHED: "crashed",
    Cause.REFUSED: "refused",
    Cause.INTERRUPTED: "released",
    Cause.SUSPECTED: "suspected",
    Cause.SNOOZED: "snoozed",
}
_LONGEST_TURN = "svc_manager_longest_turn_processor_seconds"


class Value:
    """A counter or a gauge."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value: float = 0


class Histogram:
    """Counts of observations between bucket bounds, and their sum."""

    __slots__ = ("_bounds", "_counts", "sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        #: The sum of all observations.
        self.sum = 0.0

    @property
    def count(self) -> int:
        """The number of observations."""
        return sum(self._counts)

    def observe(self, value: float, count: int = 1) -> None:
        """Add *count* observations of one *value*."""
        if 0 <= value <= OBSERVATION_MAX:
            self._counts[bisect_left(self._bounds, value)] += count
            self.sum += value * count
        else:
            self.observe(_sound(value), count)

    def observe_all(self, values: Sequence[float]) -> None:
        """Add many observations; if all are in one bucket, they take a single step."""
        if not values:
            return
        total, least, most = sum(values), min(values), max(values)
        if not (least >= 0 and most <= OBSERVATION_MAX and total < math.inf):
            values = [_sound(value) for value in values]
            total, least, most = sum(values), min(values), max(values)
        self.sum += total
        low, high = bisect_left(self._bounds, least), bisect_left(self._bounds, most)
        if low == high:
            self._counts[low] += len(values)
            return
        for value in values:
            self._counts[bisect_left(self._bounds, value, low, high)] += 1

    def buckets(self) -> list[tuple[float, int]]:
        """Return (upper bound, observations up to it), the last bound being infinity."""
        # One copy, so that a scrape during an observation still gets consistent buckets.
        return list(zip((*self._bounds, math.inf), accumulate(self._counts[:]), strict=True))


def _sound(value: float) -> float:
    # Run times come from consumers: one NaN or infinity would stay in the sum for ever.
    return min(value, OBSERVATION_MAX) if 0 <= value < math.inf else 0.0


class MetricSeries:
    """The series of each metric in a catalogue, by the values of its labels.

    Series whose labels all have closed sets of values are there from the start, so that `rate()` sees their
    first event.
    """

    def __init__(self, catalogue: Iterable[Metric]) -> None:
        self._catalogue = {metric.name: metric for metric in catalogue}
        self._numbers: dict[str, dict[tuple[str, ...], Value]] = {name: {} for name in self._catalogue}
        self._histograms: dict[str, dict[tuple[str, ...], Histogram]] = {name: {} for name in self._catalogue}
        for metric in self._catalogue.values():
            if metric.values.keys() >= set(metric.labels):
                for labels in product(*metric.values.values()):
                    (self.histogram if metric.buckets else self.number)(metric.name, *labels)

    def number(self, name: str, *labels: str) -> Value:
        """Return the counter or gauge *name* with these values of its labels; it begins with 0."""
        series = self._numbers[name]
        return series.get(labels) or series.setdefault(labels, Value())

    def numbers(self, name: str, *labels: str) -> dict[str, Value]:
        """Return the counters of each value of the last label, whose set is closed, by that value."""
        metric = self._catalogue[name]
        return {last: self.number(name, *labels, last) for last in metric.values[metric.labels[-1]]}

    def histogram(self, name: str, *labels: str) -> Histogram:
        """Return the histogram *name* with these values of its labels."""
        series = self._histograms[name]
        return series.get(labels) or series.setdefault(labels, Histogram(self._catalogue[name].buckets))

    def only(self, name: str, *labels: str) -> Value:
        """Return the gauge *name* with these values of its labels, and drop its other series."""
        self._numbers[name] = {labels: Value()}
        return self._numbers[name][labels]

    def expose(self) -> Iterator[str]:
        """Yield the text of each metric that has a series."""
        for name, metric in self._catalogue.items():
            # `list` is a single step of the interpreter: the manager's thread may add a series meanwhile.
            if numbers := list(self._numbers[name].items()):
                yield number_family(metric, [(labels, number.value) for labels, number in numbers])
            elif histograms := list(self._histograms[name].items()):
                yield histogram_family(
                    metric, [(labels, each.buckets(), each.sum) for labels, each in histograms]
                )


class _JobSeries:
    """The numbers of one queue and task."""

    def __init__(self, registry: MetricSeries, queue: str, task: str) -> None:
        key = self.key = (queue, task)
        self.submitted = registry.number("svc_jobs_submitted_total", *key)
        self.started = registry.number("svc_jobs_started_total", *key)
        self.retries = registry.number("svc_job_retries_total", *key)
        self.requeued = registry.number("svc_jobs_requeued_total", *key)
        self.purged = registry.number("svc_jobs_purged_total", *key)
        self.outcomes = registry.numbers("svc_job_attempts_total", *key)
        self.finished = registry.numbers("svc_jobs_finished_total", *key)
        self.wait = registry.histogram("svc_job_queue_wait_seconds", *key)
        self.run = registry.histogram("svc_job_run_seconds", *key)
        self.total = registry.histogram("svc_job_total_seconds", *key)


class _QueueSeries:
    """The numbers of one queue."""

    def __init__(self, registry: MetricSeries, queue: str) -> None:
        self.expiries = registry.number("svc_lease_expiries_total", queue)
        self.stale = registry.number("svc_stale_acks_total", queue)
        self.rejected = registry.numbers("svc_jobs_rejected_total", queue)
        self.payload = registry.histogram("svc_job_payload_bytes", queue)


class _MethodSeries:
    """The numbers of one remote method."""

    def __init__(self, registry: MetricSeries, method: str) -> None:
        self.results = registry.numbers("svc_manager_calls_total", method)
        self.seconds = registry.histogram("svc_manager_call_seconds", method)


class ManagerMetrics(Observer):
    """Counts the events of the manager.

    The observer's methods are called only in the manager's thread, except `counted` and `measured`, which any
    thread may call. Any thread may also call `mean_run_seconds` and `collect`.
    """

    def __init__(self, release: str = "", sqlite: str = "") -> None:
        """Start all counters at 0, including those of the usual queue, so that `rate()` sees its first event.

        *release* and *sqlite* are the releases of svc and of SQLite; the second is empty without a file.
        """
        self.sqlite = sqlite
        self._registry = registry = MetricSeries(MANAGER_METRICS)
        self._labels = Labels()
        self._jobs: dict[tuple[str, str], _JobSeries] = {}
        self._queues: dict[str, _QueueSeries] = {}
        self._methods: dict[str, _MethodSeries] = {}
        self._turn_seconds = registry.histogram("svc_manager_turn_seconds")
        self._longest_turn = registry.number("svc_manager_longest_turn_seconds")
        self._commit_seconds = registry.histogram("svc_journal_commit_seconds")
        self._commit_records = registry.histogram("svc_journal_commit_records")
        self._lock = threading.Lock()
        registry.only(_LONGEST_TURN, "none", "none")
        versions = (release, platform.python_version(), sqlite, "manager")
        registry.number("svc_build_info", *versions).value = 1
        self._queue(DEFAULT_QUEUE)

    # --- the observer's methods ---------------------------------------------------------------------

    def submitted(self, terms: Terms, count: int, size: int) -> None:
        """Count accepted jobs and their size."""
        self._series(terms).submitted.value += count
        self._queue(terms.queue).payload.observe(size / max(count, 1), count)

    def rejected(self, queue: str, reason: str, count: int) -> None:
        """Count refused jobs."""
        rejected = self._queue(queue or OTHER).rejected
        rejected[reason if reason in rejected else OTHER].value += count

    def refused(self, kind: str, role: str) -> None:
        """Count a refused connection or request."""
        self.counted("svc_manager_refusals_total", kind if kind in REFUSALS else OTHER, role)

    def started(self, terms: Terms, count: int, waited: float) -> None:
        """Count started jobs, and the time that they waited."""
        series = self._series(terms)
        series.started.value += count
        series.wait.observe(waited, count)

    def succeeded(self, terms: Terms, seconds: Sequence[float], age: float) -> None:
        """Count results, with their run times and total times."""
        series, count = self._series(terms), len(seconds)
        series.outcomes["succeeded"].value += count
        series.finished["succeeded"].value += count
        if count == 1:
            series.run.observe(seconds[0])
        else:
            series.run.observe_all(seconds)
        series.total.observe(age, count)

    def failed(
        self, terms: Terms, cause: Cause, error_type: str, seconds: float, retried: bool, age: float
    ) -> None:
        """Count an attempt without a result, and the retry or dead job that follows."""
        series = self._series(terms)
        series.outcomes[_OUTCOME_OF[cause]].value += 1
        series.run.observe(seconds)
        if cause is Cause.SNOOZED:
            return
        error_type = self._labels.fold("exception", error_type, of=" ".join(series.key))
        self._registry.number("svc_job_exceptions_total", *series.key, error_type).value += 1
        if retried:
            series.retries.value += 1
        else:
            series.finished["dead"].value += 1
            series.total.observe(age)

    def released(self, terms: Terms, count: int) -> None:
        """Count jobs that a consumer gave back."""
        self._series(terms).outcomes["released"].value += count

    def expired(self, terms: Terms, count: int) -> None:
        """Count jobs whose lease expired."""
        self._series(terms).outcomes["lost"].value += count
        self._queue(terms.queue).expiries.value += count

    def cancelled(self, terms: Terms, count: int) -> None:
        """Count cancelled jobs."""
        self._series(terms).finished["cancelled"].value += count

    def requeued(self, terms: Terms, count: int) -> None:
        """Count dead jobs that were re-queued."""
        self._series(terms).requeued.value += count

    def purged(self, terms: Terms, count: int) -> None:
        """Count jobs that were removed on request."""
        self._series(terms).purged.value += count

    def stale(self, queue: str, count: int) -> None:
        """Count outcomes that came too late; *queue* is empty if the job is already forgotten."""
        self._queue(queue or OTHER).stale.value += count

    def committed(self, records: int, seconds: float) -> None:
        """Count a commit."""
        self._commit_records.observe(records)
        self._commit_seconds.observe(seconds)

    def turned(self, seconds: float) -> None:
        """Count a turn of the loop."""
        self._turn_seconds.observe(seconds)
        self._longest_turn.value = max(self._longest_turn.value, seconds)

    def longest_turn(self, processor_seconds: float, part: str, role: str) -> None:
        """Keep the processor time of the turn that took most, and its longest part and role."""
        self._registry.only(_LONGEST_TURN, part, role).value = processor_seconds

    def called(self, method: str, result: str, seconds: float) -> None:
        """Count a request."""
        series = self._methods.get(method)
        if series is None:
            name = self._labels.fold("method", method)
            series = self._methods.get(name) or self._methods.setdefault(
                name, _MethodSeries(self._registry, name)
            )
        series.results[result].value += 1
        series.seconds.observe(seconds)

    def counted(self, metric: str, *labels: str, by: int = 1) -> None:
        """Add *by* to a counter or gauge."""
        with self._lock:
            self._registry.number(metric, *labels).value += by

    def measured(self, metric: str, value: float, *labels: str) -> None:
        """Set a gauge."""
        with self._lock:
            self._registry.number(metric, *labels).value = value

    # --- series -------------------------------------------------------------------------------------

    def mean_run_seconds(self) -> dict[str, float]:
        """Return the mean run time of all attempts so far, for each queue with attempts."""
        counts: dict[str, int] = {}
        sums: dict[str, float] = {}
        for (queue, _), series in list(self._jobs.items()):
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
                series = self._jobs.setdefault((queue, task), _JobSeries(self._registry, queue, task))
        return series

    def _queue(self, queue: str) -> _QueueSeries:
        series = self._queues.get(queue)
        if series is None:
            name = self._labels.fold("queue", queue)
            series = self._queues.get(name) or self._queues.setdefault(
                name, _QueueSeries(self._registry, name)
            )
        return series

    # --- the exposition -----------------------------------------------------------------------------

    def collect(self, totals: Totals) -> Iterator[str]:
        """Yield all metrics as text, those of this process first."""
        began = time.perf_counter()
        yield from of_this_process()
        for stats in totals.queues:
            if not self._labels.is_full("queue"):
                self._queue(stats.name)
        set_gauges(self._registry, totals, list(self._queues))
        for label, count in self._labels.overflow.items():
            self._registry.number("svc_label_overflow_total", label).value = count
        for family in self._registry.expose():
            yield family
            self._registry.number("svc_collector_seconds").value = time.perf_counter() - began


def set_gauges(registry: MetricSeries, totals: Totals, queues: Iterable[str]) -> None:
    """Set the gauges that *totals* tell; queues that are not among *queues* share the name `other`."""
    for name, value in {
        "svc_workers": totals.workers,
        "svc_draining": float(totals.drain != 0),
        "svc_drained_workers": len(totals.drained_workers),
        "svc_manager_clock_offset_seconds": totals.clock_offset,
        "svc_manager_clock_held": float(totals.clock_held),
        "svc_manager_uptime_seconds": totals.uptime,
        "svc_journal_size_bytes": totals.journal_bytes,
    }.items():
        registry.number(name).value = value
    registry.number("svc_consumers", "busy").value = totals.busy
    registry.number("svc_consumers", "idle").value = max(0, totals.consumers - totals.busy)
    groups: dict[str, list[QueueStats]] = {name: [] for name in queues}
    for stats in totals.queues:
        groups.setdefault(stats.name if stats.name in groups else OTHER, []).append(stats)
    for name, group in groups.items():
        for state, number in registry.numbers("svc_queue_jobs", name).items():
            number.value = sum(getattr(stats, state) for stats in group)
        for metric, value in {
            "svc_queue_oldest_job_age_seconds": max((stats.oldest for stats in group), default=0.0),
            "svc_queue_oldest_running_seconds": max((stats.oldest_running for stats in group), default=0.0),
            "svc_queue_unknown_tasks": sum(stats.unknown_tasks for stats in group),
        }.items():
            registry.number(metric, name).value = value
