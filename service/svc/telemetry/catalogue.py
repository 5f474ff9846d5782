"""The catalogue of metrics: every metric that svc exports, with its type, labels and meaning.

`docs/metrics.md` is made from this (`python -m svc.telemetry.catalogue > docs/metrics.md`); rules,
panels and the exposition itself are tested against it. Rules for all: base units; label values from
closed sets; no job id, message, user or host in a metric of jobs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from svc.telemetry.label_values import (
    CALL_RESULTS,
    CONSUMER_STATES,
    DROP_REASONS,
    FINAL_OUTCOMES,
    KEY_ROLES,
    LABEL_BOUNDS,
    LEAD_ROLES,
    OUTCOMES,
    QUEUE_STATES,
    RECOVERY_PLACES,
    REFUSALS,
    REJECTIONS,
    RESTART_REASONS,
)

#: Prefix of every metric.
PREFIX = "svc_"
#: Bucket bounds in seconds for waiting and running: 5 ms to 1 h.
_QUICK_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5)
JOB_SECONDS = (*_QUICK_SECONDS, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
#: Bucket bounds in seconds for the manager's own work: 0.1 ms to 5 s.
MANAGER_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 5.0)
#: Bucket bounds for records in one commit.
RECORDS = tuple(float(2**exponent) for exponent in range(13))
#: Bucket bounds in bytes for the content of one job: 256 B to 16 MiB.
PAYLOAD_BYTES = tuple(float(4**exponent) for exponent in range(4, 13))


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric.

    Attributes:
        name: as it appears in the exposition; a counter ends in `_total`.
        kind: `counter`, `gauge` or `histogram`.
        labels: its label names, in the order in which values are given.
        help: one sentence, with the unit if the name does not tell it.
        buckets: upper bounds of a histogram, ascending, without infinity.
        values: all values of those labels that have a closed set of them, the last ones.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


_JOB = ("queue", "task")

MANAGER_METRICS: tuple[Metric, ...] = (
    Metric("svc_jobs_submitted_total", "counter", _JOB, "Jobs accepted."),
    Metric(
        "svc_jobs_rejected_total",
        "counter",
        ("queue", "reason"),
        "Submissions refused, by error code.",
        values={"reason": REJECTIONS},
    ),
    Metric("svc_jobs_started_total", "counter", _JOB, "Jobs handed to a consumer, retries included."),
    Metric(
        "svc_job_attempts_total",
        "counter",
        (*_JOB, "outcome"),
        "Attempts ended; released: handed back uncharged, lost: taken back from a holder that has gone, "
        "suspected: lost with its worker, and charged for it, snoozed: put off by its task, uncharged.",
        values={"outcome": OUTCOMES},
    ),
    Metric("svc_job_retries_total", "counter", _JOB, "Jobs scheduled again after a failed attempt."),
    Metric(
        "svc_jobs_finished_total",
        "counter",
        (*_JOB, "outcome"),
        "Jobs that reached a final state; one that is dead and requeued counts again.",
        values={"outcome": FINAL_OUTCOMES},
    ),
    Metric("svc_jobs_requeued_total", "counter", _JOB, "Dead jobs made ready again on request."),
    Metric("svc_jobs_purged_total", "counter", _JOB, "Jobs that had ended and were removed on request."),
    Metric(
        "svc_job_exceptions_total",
        "counter",
        (*_JOB, "exception"),
        "Attempts that ended without a result, by class of error.",
    ),
    Metric(
        "svc_job_queue_wait_seconds",
        "histogram",
        _JOB,
        "Wait from ready to handed over; a delay that was asked for does not count.",
        JOB_SECONDS,
    ),
    Metric("svc_job_run_seconds", "histogram", _JOB, "Run time of one attempt.", JOB_SECONDS),
    Metric(
        "svc_job_total_seconds",
        "histogram",
        _JOB,
        "Time from accepted to succeeded or dead, retries included.",
        JOB_SECONDS,
    ),
    Metric(
        "svc_job_payload_bytes",
        "histogram",
        ("queue",),
        "Size of submitted content; the jobs of one chunk count at their mean.",
        PAYLOAD_BYTES,
    ),
    Metric("svc_queue_jobs", "gauge", ("queue", "state"), "Jobs by state.", values={"state": QUEUE_STATES}),
    Metric("svc_queue_oldest_job_age_seconds", "gauge", ("queue",), "Age of the oldest ready job, or 0."),
    Metric(
        "svc_queue_oldest_running_seconds",
        "gauge",
        ("queue",),
        "Age of the oldest running attempt, or 0.",
    ),
    Metric(
        "svc_queue_unknown_tasks", "gauge", ("queue",), "Tasks waited for that no connected worker knows."
    ),
    Metric("svc_lease_expiries_total", "counter", ("queue",), "Jobs taken back from a holder that has gone."),
    Metric("svc_stale_acks_total", "counter", ("queue",), "Outcomes refused because the lease had moved on."),
    Metric("svc_workers", "gauge", (), "Connected workers."),
    Metric(
        "svc_consumers",
        "gauge",
        ("state",),
        "Consumers of the connected workers.",
        values={"state": CONSUMER_STATES[:2]},
    ),
    Metric("svc_draining", "gauge", (), "1 while a drain of the whole service is in force."),
    Metric("svc_drained_workers", "gauge", (), "Workers for which a drain of their own is in force."),
    Metric(
        "svc_manager_clock_offset_seconds",
        "gauge",
        (),
        "How far the host's time of day is ahead of the queue's clock.",
    ),
    Metric(
        "svc_manager_clock_held",
        "gauge",
        (),
        "1 while the clock goes on from the journal's time, because the host's is too far from that.",
    ),
    Metric(
        "svc_manager_calls_total",
        "counter",
        ("method", "result"),
        "Remote calls served.",
        values={"result": CALL_RESULTS},
    ),
    Metric("svc_manager_call_seconds", "histogram", ("method",), "Time to serve one call.", MANAGER_SECONDS),
    Metric("svc_manager_connections", "gauge", (), "Open authenticated connections."),
    Metric("svc_manager_auth_failures_total", "counter", (), "Handshakes refused."),
    Metric("svc_manager_memory_bytes", "gauge", (), "Memory in use that counts against the limit."),
    Metric("svc_manager_memory_limit_bytes", "gauge", (), "The memory limit; 0 if there is none."),
    Metric(
        "svc_manager_memory_refusing", "gauge", (), "1 while new jobs are refused because that limit is near."
    ),
    Metric("svc_journal_free_bytes", "gauge", (), "Room on the journal's disk or in its stream (memory: 0)."),
    Metric("svc_journal_refusing", "gauge", (), "1 while new jobs are refused, as there is too little room."),
    Metric(
        "svc_manager_refusals_total",
        "counter",
        ("kind", "role"),
        "Requests and connections refused; the role is that of the key, or `none`.",
        values={"kind": REFUSALS, "role": KEY_ROLES},
    ),
    Metric("svc_manager_uptime_seconds", "gauge", (), "Time since the manager started."),
    Metric(
        "svc_manager_turn_seconds",
        "histogram",
        (),
        "Duration of one turn of the manager's loop, commit and upkeep included.",
        MANAGER_SECONDS,
    ),
    Metric("svc_manager_longest_turn_seconds", "gauge", (), "The longest of these turns since the start."),
    Metric(
        "svc_manager_longest_turn_processor_seconds",
        "gauge",
        ("part", "role"),
        "The most processor time of one turn, most of it for this command, call or part of a key's role.",
    ),
    Metric(
        "svc_manager_recoveries_total",
        "counter",
        ("place",),
        "Faults of svc in the queue's state, each recovered from in place, but for those in `reading`.",
        values={"place": RECOVERY_PLACES},
    ),
    Metric("svc_journal_commit_seconds", "histogram", (), "Duration of one group commit.", MANAGER_SECONDS),
    Metric("svc_journal_commit_records", "histogram", (), "Events in one group commit.", RECORDS),
    Metric("svc_journal_size_bytes", "gauge", (), "Size of the journal's files."),
    Metric(
        "svc_journal_recovered_jobs", "gauge", (), "Jobs restored at the last start or recovery in place."
    ),
    Metric("svc_journal_recovery_seconds", "gauge", (), "Time that it took to restore them."),
    Metric(
        "svc_journal_unconfirmed_seconds",
        "gauge",
        (),
        "Age of the oldest commit that the servers of a replicated journal have not confirmed, or 0.",
    ),
    Metric(
        "svc_journal_lag_messages",
        "gauge",
        (),
        "Messages of a replicated journal that are not yet in this manager's mirror.",
    ),
    Metric(
        "svc_manager_role",
        "gauge",
        ("role",),
        "1 for the place of this manager among those on one replicated journal; 0 for all without one.",
        values={"role": LEAD_ROLES},
    ),
    Metric(
        "svc_manager_unsure",
        "gauge",
        (),
        "1 while a leader cannot renew its key, and so hands out nothing and renews no lease.",
    ),
    Metric("svc_manager_term", "gauge", (), "The highest term in the replicated journal; 0 without one."),
    Metric(
        "svc_manager_standbys",
        "gauge",
        (),
        "Standbys that have caught up with the journal, as far as a leader knows; of a standby 0.",
    ),
    Metric("svc_manager_takeovers_total", "counter", (), "Times that this manager has become the leader."),
    Metric("svc_partial_results_total", "counter", (), "Partial results of jobs that were recorded."),
    Metric("svc_partial_result_bytes_total", "counter", (), "Their bytes."),
    Metric(
        "svc_output_bytes_total",
        "counter",
        ("stream",),
        "Output of jobs that workers sent.",
        values={"stream": ("stdout", "stderr")},
    ),
    Metric(
        "svc_output_dropped_bytes_total",
        "counter",
        ("reason",),
        "Output of jobs dropped; full: the oldest, to make room, scarce: disk or memory was short, "
        "fault: the file could not be written.",
        values={"reason": DROP_REASONS},
    ),
    Metric("svc_output_size_bytes", "gauge", (), "Size of the output of jobs that is kept."),
    Metric("svc_output_limit_bytes", "gauge", (), "The size that it may have at most."),
    Metric("svc_large_values_bytes", "gauge", (), "Size of all large arguments and results."),
    Metric("svc_large_values_limit_bytes", "gauge", (), "The size that they may have at most."),
    Metric(
        "svc_label_overflow_total",
        "counter",
        ("label",),
        "Times that a new label value counted as `other`.",
        values={"label": tuple(LABEL_BOUNDS)},
    ),
    Metric("svc_collector_seconds", "gauge", (), "Time that making this exposition took so far."),
    Metric(
        "svc_build_info",
        "gauge",
        ("version", "python", "sqlite", "engine"),
        "Always 1; its labels tell what runs.",
    ),
)

WORKER_METRICS: tuple[Metric, ...] = (
    Metric(
        "svc_worker_info",
        "gauge",
        ("worker", "host", "version", "start_method"),
        "Always 1; its labels tell what runs.",
    ),
    Metric(
        "svc_worker_consumers",
        "gauge",
        ("worker", "state"),
        "Consumer processes.",
        values={"state": CONSUMER_STATES},
    ),
    Metric(
        "svc_worker_consumer_busy_seconds_total",
        "counter",
        ("worker",),
        "Consumer-seconds spent in tasks; its rate over the consumers is their utilisation.",
    ),
    Metric(
        "svc_worker_consumer_restarts_total",
        "counter",
        ("worker", "reason"),
        "Consumers replaced.",
        values={"reason": RESTART_REASONS},
    ),
    Metric(
        "svc_worker_cpu_limit_cores",
        "gauge",
        ("worker", "source"),
        "CPU count that sized the pool.",
    ),
    Metric("svc_worker_memory_bytes", "gauge", ("worker",), "Memory in use by the worker's control group."),
    Metric("svc_worker_memory_limit_bytes", "gauge", ("worker",), "Memory limit of that group, if any."),
    Metric("svc_worker_manager_reconnects_total", "counter", ("worker",), "Connections to the manager lost."),
    Metric(
        "svc_worker_output_dropped_bytes_total",
        "counter",
        ("worker",),
        "Output of ended attempts dropped because the manager was away for too long.",
    ),
    Metric("svc_worker_draining", "gauge", ("worker",), "1 while the worker takes nothing new."),
    Metric(
        "svc_worker_round_trip_seconds",
        "gauge",
        ("worker",),
        "Time of a request that the manager answers at once: the least of the last eight.",
    ),
)

#: Metrics that prometheus_client exports for the process, in addition to ours.
STANDARD_METRICS: tuple[Metric, ...] = (
    Metric("process_cpu_seconds_total", "counter", (), "CPU time of the process."),
    Metric("process_resident_memory_bytes", "gauge", (), "Resident memory of the process."),
    Metric("process_virtual_memory_bytes", "gauge", (), "Virtual memory of the process."),
    Metric("process_start_time_seconds", "gauge", (), "Unix time at which the process started."),
    Metric("process_open_fds", "gauge", (), "Open file descriptors."),
    Metric("process_max_fds", "gauge", (), "Most file descriptors that may be open."),
)

_INTRODUCTION = """\
# Metrics

<!-- Made from service/svc/telemetry/catalogue.py by: python -m svc.telemetry.catalogue > docs/metrics.md -->

The manager counts the life of every job and serves it at `/metrics` (port 9100); `svc metrics` prints the
same. Each worker serves its own processes' figures (port 9101). Beside them both serve `/livez` (the process
answers) and `/readyz` (it can do its work), the manager also `/sd/workers` (the workers, as Prometheus' HTTP
service discovery) and `/api/v1/scale` (what an autoscaler asks for: `ready`, `leased`, `desired_consumers`).
Each of these answers is made at most once a second, and given to all who ask within that second.
Ready rules, alerts and a dashboard are in `deploy/prometheus` and `deploy/grafana`.

Counters start at 0 with their process, which `rate()` allows for. No metric of jobs has an id, a message, a
user or a host as a label. Of these labels only so many distinct values are kept; later ones count as `other`,
and in `svc_label_overflow_total`:
"""


def markdown() -> str:
    """Return the page `docs/metrics.md`."""
    return "\n".join(_page()) + "\n"


def _page() -> Iterator[str]:
    yield _INTRODUCTION
    yield (
        ", ".join(f"`{label}` {bound}" for label, bound in LABEL_BOUNDS.items())
        + " (a task counts once for each queue, an exception once for each task of a queue)."
    )
    yield from _section("Manager", MANAGER_METRICS)
    yield from _section("Worker", WORKER_METRICS)
    yield from _section("Both, for the process", STANDARD_METRICS)
    yield from _values()


def _section(title: str, metrics: tuple[Metric, ...]) -> Iterator[str]:
    yield ""
    yield f"## {title}"
    yield ""
    yield "| metric | type | labels | meaning |"
    yield "|---|---|---|---|"
    for each in metrics:
        labels = ", ".join(f"`{label}`" for label in each.labels)
        yield f"| `{each.name}` | {each.kind} | {labels} | {each.help} |"


def _values() -> Iterator[str]:
    yield ""
    yield "## Label values"
    yield ""
    yield "| label | of | values |"
    yield "|---|---|---|"
    for each in (*MANAGER_METRICS, *WORKER_METRICS):
        for label, values in each.values.items():
            yield f"| `{label}` | `{each.name}` | {', '.join(f'`{value}`' for value in values)} |"


if __name__ == "__main__":
    sys.stdout.write(markdown())
