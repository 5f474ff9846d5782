"""The log events of workers alone, for the catalogue in `events`."""

from __future__ import annotations

from svc.telemetry.log_event import ERROR, INFO, WARNING, LogEvent

WORKER_EVENTS: tuple[LogEvent, ...] = (
    LogEvent(
        "attempt_finished",
        ("info", "warning"),
        "The record of one attempt: info if it succeeded or its task put it off, otherwise warning.",
        (
            "job_id",
            "task",
            "queue",
            "attempt",
            "outcome",
            "wait_s",
            "run_s",
            "error_type",
            "error",
            "retry_in_s",
        ),
    ),
    LogEvent(
        "attempts_finished",
        INFO,
        "The record of neighbouring attempts that succeeded, and took less than 20 ms each or were in one "
        "list: all from the first one to the last.",
        (
            "jobs",
            "first_job_id",
            "last_job_id",
            "task",
            "queue",
            "outcome",
            "wait_s",
            "run_s",
            "longest_run_s",
        ),
    ),
    LogEvent(
        "code_changed",
        ("info", "warning"),
        "A consumer has loaded other code of the tasks than those before it: info after a reload; a warning "
        "if the files were just changed, and the other consumers go on with the old code until a reload.",
        ("old", "new", "reloaded"),
    ),
    LogEvent(
        "consumer_died",
        WARNING,
        "A consumer process ended otherwise than it should; it is replaced.",
        ("pid", "cause", "executing", "job_id", "task"),
    ),
    LogEvent(
        "consumer_killed",
        ("info", "warning"),
        "The worker killed a consumer, for instance because its job ran over the timeout: info if that "
        "belongs to the stop of a worker, as at the end of its grace; otherwise warning.",
        ("pid", "reason", "job_id", "task"),
    ),
    LogEvent(
        "forkserver_stopped",
        WARNING,
        "The process that forks the worker's consumers was stopped, perhaps by a task. The worker killed it, "
        "and starts another one and its consumers anew.",
        ("pid",),
    ),
    LogEvent("consumer_left", INFO, "A consumer ended as it was told to, by a pill or a stop.", ("pilled",)),
    LogEvent(
        "consumer_not_started", ERROR, "A consumer process could not be started; tried again.", ("error",)
    ),
    LogEvent(
        "consumer_recycled",
        INFO,
        "A consumer is worn (`jobs`, `age`, `rss`, `reload`), its successor is ready, and it has to leave.",
        ("successor", "reason"),
    ),
    LogEvent(
        "consumer_renewed",
        WARNING,
        "A task has changed its process in ways that cannot be put back; the consumer is replaced.",
        ("changed",),
    ),
    LogEvent(
        "descriptors_exhausted",
        ERROR,
        "A consumer can open no descriptor, and so not report; it exits with code 71 and is replaced.",
        ("error",),
    ),
    LogEvent("manager_reconnected", INFO, "The manager answers again.", ("manager",)),
    LogEvent(
        "manager_unreachable",
        ("warning", "debug"),
        "The manager does not answer; tried again for ever (warning: supervisor, debug: consumers).",
        ("manager", "error"),
    ),
    LogEvent(
        "outcome_refused",
        WARNING,
        "The manager did not record the outcome of an attempt, mostly because its lease had moved on.",
        ("code", "error"),
        repeats=True,
    ),
    LogEvent(
        "output_refused",
        WARNING,
        "The manager does not take the output of tasks, mostly because it is of an earlier release.",
        ("error",),
    ),
    LogEvent(
        "pickle_refused",
        ERROR,
        "A pickled job was not signed for this worker's queue and task; it was not opened, and is dead. "
        "A stolen manager, or a submitter without the workers' pickle key.",
        ("job_id", "task", "queue"),
        repeats=True,
    ),
    LogEvent(
        "preload_started_threads",
        WARNING,
        "Modules of `--preload` started threads in the forkserver; consumers lack them, and may hang.",
        ("threads",),
    ),
    LogEvent(
        "report_refused",
        WARNING,
        "The manager did not accept a report of the supervisor.",
        ("report", "code", "error"),
        repeats=True,
    ),
    LogEvent(
        "reports_undelivered",
        WARNING,
        "The worker ended with reports that the manager has not had; leases will expire instead.",
        ("count",),
    ),
    LogEvent("stop_hook_failed", ERROR, "A hook of `@on_stop` raised; the others go on.", ("hook", "error")),
    LogEvent(
        "stop_signal_refused",
        WARNING,
        "A task sent its worker SIGTERM or SIGINT; its job is charged with a crash, and the worker goes on.",
        ("job_id", "task"),
    ),
    LogEvent(
        "tasks_not_loaded",
        ERROR,
        "A consumer could not import the task modules, or a hook of `@on_start` failed.",
        ("error",),
    ),
    LogEvent("worker_drained", INFO, "Every consumer has had its pill; the worker ends.", ("consumers",)),
    LogEvent(
        "worker_limit_reached",
        INFO,
        "The worker stops by itself: it had no job for `--idle`, or its `--time-limit` is over.",
        ("limit",),
    ),
    LogEvent(
        "worker_reloading",
        INFO,
        "At SIGHUP: all consumers are replaced, one after the other, by ones that load the tasks again.",
        ("consumers",),
    ),
    LogEvent(
        "worker_resumed",
        INFO,
        "A drain ended before all consumers had gone; their places are filled again.",
        ("consumers",),
    ),
    LogEvent(
        "worker_started",
        INFO,
        "The worker runs, and joins the manager.",
        ("consumers", "cpu", "cpu_source", "tasks"),
    ),
    LogEvent("worker_stopped", INFO, "The worker ended in order."),
    LogEvent("worker_stopping", INFO, "The worker was told to stop.", ("grace_s", "consumers")),
)
