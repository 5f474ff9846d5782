"""Rows about queues, jobs and tasks."""  # noqa: INP001  # build.py beside it is a script

from __future__ import annotations

from panels import Graph, Row, Stat
from queries import BAD_BELOW_ONE, BAD_FROM_ONE, ENDED, FAILED, QUEUE, TASK, per_second

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
