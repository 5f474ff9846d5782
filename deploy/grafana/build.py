#!/usr/bin/env python3
"""Writes the dashboard: deploy/grafana/build.py > deploy/grafana/dashboards/svc.json, as a test checks.

The first row answers "is it all right?"; each further one says why not. Quantiles come from the recording
rules beside it (`../prometheus/rules`), so that they survive a change to native histograms.
"""

from __future__ import annotations

import json
import sys

from panels import Graph, Row, Stat, Table, dashboard

BAD_BELOW_ONE = ((None, "red"), (1.0, "green"))
BAD_FROM_ONE = ((None, "green"), (1.0, "red"))
QUEUE = 'queue=~"$queue"'
TASK = f'{QUEUE}, task=~"$task"'
FAILURES = "failed|timed_out|crashed|refused"


def per_second(metric: str, by: str, matchers: str = QUEUE) -> str:
    """Return the rate of a counter, summed *by* labels."""
    return f"sum by ({by}) (rate({metric}{{{matchers}}}[$__rate_interval]))"


FAILED = per_second("svc_job_attempts_total", "job", f'{QUEUE}, outcome=~"{FAILURES}"')
ENDED = per_second("svc_job_attempts_total", "job", f'{QUEUE}, outcome!~"released|lost"')

HEALTH = Row(
    "Is it all right?",
    (
        Stat(
            "Manager",
            "Whether Prometheus gets an answer from the manager.",
            "short",
            {"": 'max(up{job="svc-manager"})'},
            BAD_BELOW_ONE,
            ((0, "DOWN"), (1, "up")),
        ),
        Stat(
            "Oldest waiting job",
            "Age of the oldest job that could run now. This, and not their number, is what submitters feel.",
            "s",
            {"": f"max(svc_queue_oldest_job_age_seconds{{{QUEUE}}})"},
            ((None, "green"), (60.0, "orange"), (300.0, "red")),
        ),
        Stat(
            "Waiting jobs",
            "Jobs that could run now.",
            "short",
            {"": f'sum(svc_queue_jobs{{{QUEUE}, state="ready"}})'},
        ),
        Stat(
            "Failing attempts",
            "Of the attempts that the task itself ended, the share without a result.",
            "percentunit",
            {"": f"sum(({FAILED}) / ({ENDED} > 0)) or vector(0)"},
            ((None, "green"), (0.02, "orange"), (0.1, "red")),
        ),
        Stat(
            "Dead jobs",
            "Jobs that were given up on and are kept: see `svc jobs list --state dead`.",
            "short",
            {"": f'sum(svc_queue_jobs{{{QUEUE}, state="dead"}})'},
            ((None, "green"), (1.0, "orange")),
        ),
        Stat(
            "Consumers",
            "Consumer processes of all connected workers.",
            "short",
            {"": "sum(svc_consumers)"},
            BAD_BELOW_ONE,
        ),
        Stat(
            "Drain",
            "Whether a drain of the whole service is in force: consumers get a pill in place of a job.",
            "short",
            {"": "max(svc_draining)"},
            ((None, "green"), (1.0, "orange")),
            ((0, "none"), (1, "DRAINING")),
        ),
        Stat(
            "Firing alerts",
            "Alerts of svc that fire now; each has a page in docs/runbooks.",
            "short",
            {"": 'count(ALERTS{alertname=~"Svc.*", alertstate="firing"}) or vector(0)'},
            BAD_FROM_ONE,
        ),
    ),
)

LATENCY = Row(
    "Latency",
    (
        Graph(
            "Age of the oldest waiting job",
            "By queue. At 300 s an alert pages. A saw-tooth is a backlog being worked off, a slope a stall.",
            "s",
            {"{{queue}}": f"max by (queue) (svc_queue_oldest_job_age_seconds{{{QUEUE}}})"},
            ((None, "green"), (300.0, "red")),
        ),
        Graph(
            "Wait from ready to started",
            "Median, 95th and 99th percentile by queue over 5 minutes, without a delay that was asked for.",
            "s",
            {
                f"{{{{queue}}}} p{n}": f"queue:svc_job_queue_wait_seconds:p{n}_5m{{{QUEUE}}}"
                for n in (50, 95, 99)
            },
        ),
        Graph(
            "Time from accepted to done",
            "95th percentile by queue over 5 minutes, with all waiting and all retries.",
            "s",
            {"{{queue}}": f"queue:svc_job_total_seconds:p95_5m{{{QUEUE}}}"},
        ),
    ),
)

TRAFFIC = Row(
    "Traffic",
    (
        Graph(
            "Jobs a second",
            "Accepted, handed to a consumer, finished. Started exceeds finished while attempts are repeated.",
            "ops",
            {
                "submitted": per_second("svc_jobs_submitted_total", "job"),
                "started": per_second("svc_jobs_started_total", "job"),
                "finished": per_second("svc_jobs_finished_total", "job"),
            },
        ),
        Graph(
            "Backlog",
            "Jobs by state: ready to run, scheduled for later or for a retry, leased by a consumer.",
            "short",
            {"{{state}}": f'sum by (state) (svc_queue_jobs{{{QUEUE}, state!="dead"}})'},
            stacked=True,
        ),
        Graph(
            "Growth of the backlog",
            "Ready jobs gained a second, by queue. Above zero for long means too few consumers.",
            "ops",
            {
                "{{queue}}": "sum by (queue)"
                f' (deriv(svc_queue_jobs{{{QUEUE}, state="ready"}}[$__rate_interval]))'
            },
            signed=True,
        ),
    ),
)

SATURATION = Row(
    "Saturation",
    (
        Graph(
            "Consumers",
            "Busy and idle. All busy and a growing backlog: add workers. Idle and a backlog: a stall.",
            "short",
            {"{{state}}": "sum by (state) (svc_consumers)"},
            stacked=True,
        ),
        Graph(
            "Utilisation of workers",
            "Share of each worker's consumer time that was spent in tasks, over 5 minutes.",
            "percentunit",
            {"{{worker}}": "worker:svc_worker_consumer_busy:ratio_rate5m"},
        ),
        Graph(
            "Memory of workers",
            "Memory of each worker's control group, and its limit where there is one.",
            "bytes",
            {"{{worker}}": "svc_worker_memory_bytes", "{{worker}} limit": "svc_worker_memory_limit_bytes"},
        ),
    ),
)

ERRORS = Row(
    "Errors",
    (
        Graph(
            "Attempts by outcome",
            "Without those that succeeded. Released were handed back, lost were taken back: no task's fault.",
            "ops",
            {"{{outcome}}": per_second("svc_job_attempts_total", "outcome", f'{TASK}, outcome!="succeeded"')},
        ),
        Graph(
            "Errors by class",
            "The ten classes of error that end most attempts.",
            "ops",
            {"{{exception}}": f"topk(10, {per_second('svc_job_exceptions_total', 'exception', TASK)})"},
        ),
        Graph(
            "Retries and dead jobs",
            "Jobs scheduled again, and jobs given up on.",
            "ops",
            {
                "retried": per_second("svc_job_retries_total", "job", TASK),
                "dead": per_second("svc_jobs_finished_total", "job", f'{TASK}, outcome="dead"'),
                "requeued": per_second("svc_jobs_requeued_total", "job", TASK),
            },
        ),
        Graph(
            "Lost jobs and late outcomes",
            "Jobs taken back from holders that had gone, and outcomes refused because they came after that.",
            "ops",
            {
                "taken back": per_second("svc_lease_expiries_total", "job"),
                "late outcomes": "sum by (job) (rate(svc_stale_acks_total[$__rate_interval]))",
            },
        ),
        Graph(
            "Refused submissions",
            "By error code: what a client was told.",
            "ops",
            {"{{reason}}": per_second("svc_jobs_rejected_total", "reason")},
        ),
        Graph(
            "Tasks that nobody knows",
            "Tasks with jobs waiting that no connected worker has.",
            "short",
            {"{{queue}}": f"max by (queue) (svc_queue_unknown_tasks{{{QUEUE}}})"},
            BAD_FROM_ONE,
        ),
    ),
)

TASKS = Row(
    "By task",
    (
        Graph(
            "Run time",
            "Median and 95th percentile of one attempt, by task, over 5 minutes.",
            "s",
            {f"{{{{task}}}} p{n}": f'task:svc_job_run_seconds:p{n}_5m{{task=~"$task"}}' for n in (50, 95)},
        ),
        Graph(
            "Consumers in use",
            "How many consumers each task keeps busy on average: its run time, summed, a second.",
            "short",
            {"{{task}}": per_second("svc_job_run_seconds_sum", "task", TASK)},
            stacked=True,
        ),
        Graph(
            "Attempts a second",
            "Ended attempts by task.",
            "ops",
            {"{{task}}": per_second("svc_job_attempts_total", "task", TASK)},
        ),
        Graph(
            "Oldest running attempt",
            "By queue. One that only grows is stuck: give its task a timeout.",
            "s",
            {"{{queue}}": f"max by (queue) (svc_queue_oldest_running_seconds{{{QUEUE}}})"},
            width=12,
        ),
        Graph(
            "Size of submitted jobs",
            "Mean size of their content, by queue.",
            "bytes",
            {
                "{{queue}}": f"{per_second('svc_job_payload_bytes_sum', 'queue')}"
                f" / {per_second('svc_job_payload_bytes_count', 'queue')}"
            },
            width=12,
        ),
    ),
)

WORKERS = Row(
    "Workers",
    (
        Table(
            "Workers",
            "Every worker that Prometheus can scrape.",
            "short",
            {
                "version": "svc_worker_info",
                "consumers": "sum by (worker) (svc_worker_consumers)",
                "busy": 'sum by (worker) (svc_worker_consumers{state="busy"})',
                "cores": "max by (worker) (svc_worker_cpu_limit_cores)",
                "restarts in 1 h": "sum by (worker) (increase(svc_worker_consumer_restarts_total[1h]))",
                "reconnects in 1 h": "sum by (worker) (increase(svc_worker_manager_reconnects_total[1h]))",
                "draining": "max by (worker) (svc_worker_draining)",
            },
            key="worker",
        ),
        Graph(
            "Replaced consumers",
            "By worker and reason.",
            "ops",
            {
                "{{worker}} {{reason}}": per_second(
                    "svc_worker_consumer_restarts_total", "worker, reason", 'worker!=""'
                )
            },
            width=12,
        ),
        Graph(
            "Memory of supervisors",
            "Resident memory of each worker's supervisor process, without its consumers.",
            "bytes",
            {"{{instance}}": 'process_resident_memory_bytes{job="svc-worker"}'},
            width=12,
        ),
    ),
)

MANAGER = Row(
    "Manager and journal",
    (
        Graph(
            "Calls a second",
            "Requests served, by method.",
            "ops",
            {"{{method}}": "sum by (method) (rate(svc_manager_calls_total[$__rate_interval]))"},
        ),
        Graph(
            "Time to serve a call",
            "99th percentile by method over 5 minutes, without the wait for the commit.",
            "s",
            {"{{method}}": "method:svc_manager_call_seconds:p99_5m"},
        ),
        Graph(
            "Duration of a commit",
            "Median and 99th percentile over 5 minutes: what every submit and every outcome waits for.",
            "s",
            {f"p{n}": f"job:svc_journal_commit_seconds:p{n}_5m" for n in (50, 99)},
        ),
        Graph(
            "Events in a commit",
            "Mean over the interval. It grows with the load: that is the group commit at work.",
            "short",
            {
                "events": "rate(svc_journal_commit_records_sum[$__rate_interval])"
                " / rate(svc_journal_commit_records_count[$__rate_interval])"
            },
        ),
        Graph(
            "Journal and memory",
            "Size of the journal's files, and resident memory of the manager.",
            "bytes",
            {
                "journal": "svc_journal_size_bytes",
                "memory": 'process_resident_memory_bytes{job="svc-manager"}',
            },
        ),
        Graph(
            "CPU of the manager",
            "Cores in use. The manager is one loop: near 1 it is at its limit.",
            "short",
            {"cores": 'rate(process_cpu_seconds_total{job="svc-manager"}[$__rate_interval])'},
        ),
        Graph(
            "Connections",
            "Open authenticated connections.",
            "short",
            {"connections": "svc_manager_connections"},
        ),
        Graph(
            "Refused handshakes",
            "Connections that did not know the authkey.",
            "ops",
            {"refused": "rate(svc_manager_auth_failures_total[$__rate_interval])"},
        ),
        Table(
            "Manager",
            "What runs, since when, and what its last start recovered.",
            "short",
            {
                "version": "svc_build_info",
                "up for (s)": "max by (instance) (svc_manager_uptime_seconds)",
                "jobs recovered": "max by (instance) (svc_journal_recovered_jobs)",
                "recovery took (s)": "max by (instance) (svc_journal_recovery_seconds)",
            },
            key="instance",
            width=8,
        ),
    ),
)

META = Row(
    "The monitoring itself",
    (
        Graph(
            "Time to collect",
            "What the manager's exposition costs, and what each scrape takes as a whole.",
            "s",
            {
                "collect": "svc_collector_seconds",
                "scrape {{instance}}": 'scrape_duration_seconds{job=~"svc-.*"}',
            },
            width=12,
        ),
        Graph(
            "Label values without room",
            "Times that a value counted as `other` because its label had its full number of values.",
            "ops",
            {"{{label}}": "rate(svc_label_overflow_total[$__rate_interval])"},
            width=12,
        ),
    ),
)

ROWS = (HEALTH, LATENCY, TRAFFIC, SATURATION, ERRORS, TASKS, WORKERS, MANAGER, META)


if __name__ == "__main__":
    sys.stdout.write(json.dumps(dashboard(ROWS), indent=2) + "\n")
