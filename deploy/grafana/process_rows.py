"""Rows about workers, managers and Prometheus itself."""  # noqa: INP001  # build.py beside it is a script

from __future__ import annotations

from panels import Graph, Row, Table
from queries import per_second

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
                "round trip (ms)": "1000 * max by (worker) (svc_worker_round_trip_seconds)",
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
            "Output of jobs",
            "Size of the output that is kept, and the size that it may have: the oldest is dropped at that.",
            "bytes",
            {"kept": "svc_output_size_bytes", "limit": "svc_output_limit_bytes"},
        ),
        Graph(
            "Large values",
            "Size of arguments and results that came in pieces. At the limit new ones are refused.",
            "bytes",
            {"kept": "svc_large_values_bytes", "limit": "svc_large_values_limit_bytes"},
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
            width=24,
        ),
    ),
)

REPLICATION = Row(
    "Managers on one journal",
    (
        Graph(
            "Leader and standbys",
            "Which manager leads, and how many standbys it knows of. Empty for a journal in a file.",
            "short",
            {
                "{{instance}} leads": 'svc_manager_role{role="leader"} == 1',
                "standbys": "max by (job) (svc_manager_standbys)",
            },
        ),
        Graph(
            "Term",
            "Each takeover begins a term.",
            "short",
            {"term": "max by (job) (svc_manager_term) > 0"},
        ),
        Graph(
            "Behind, and without an answer",
            "Messages that a standby's mirror lacks, and seconds for which the leader's oldest commit waits.",
            "short",
            {
                "{{instance}} lacks": "svc_journal_lag_messages",
                "{{instance}} waits": "svc_journal_unconfirmed_seconds",
            },
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
