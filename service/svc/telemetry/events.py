"""The catalogue of log events: every event that svc logs, its meaning, and its fields.

`docs/events.md` is made from this (`python -m svc.telemetry.events > docs/events.md`), and a test
compares it with the log calls in the source. Field names end in their unit: `_s` seconds, `_b` bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One kind of log record.

    Attributes:
        name: the value of the record's `event`, in snake_case.
        levels: the levels at which it is logged.
        meaning: one sentence.
        fields: its fields, without the common ones.
        repeats: whether at most one in 30 s is shown, with the number `suppressed` since the one before.
    """

    name: str
    levels: tuple[str, ...]
    meaning: str
    fields: tuple[str, ...] = field(default=())
    repeats: bool = False


#: Fields that any record may have.
COMMON_FIELDS = MappingProxyType(
    {
        "timestamp": "UTC, ISO 8601",
        "level": "`debug`, `info`, `warning` or `error`",
        "event": "a name from the table below",
        "worker": "the worker that writes it, if one does",
        "consumer": "the consumer that writes it, if one does",
        "exception": "traceback, where there is one",
        "suppressed": "how many records of this event were held back since the last",
    }
)

_DEBUG, _INFO, _WARNING, _ERROR = ("debug",), ("info",), ("warning",), ("error",)
_ANY = ("debug", "info", "warning", "error")

EVENTS: tuple[LogEvent, ...] = (
    LogEvent(
        "accept_paused",
        _ERROR,
        "The manager could not accept a connection, mostly for want of file descriptors; it tries again.",
        ("error",),
        repeats=True,
    ),
    LogEvent(
        "attempt_finished",
        ("info", "warning"),
        "The record of one attempt: info if it succeeded, warning if it did not.",
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
        _INFO,
        "The record of neighbouring short attempts that succeeded: all jobs from the first one to the last.",
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
    LogEvent("backup_failed", _WARNING, "An online backup was not made.", ("path", "error")),
    LogEvent("backup_made", _INFO, "An online backup was copied, synced and checked.", ("path", "size_b")),
    LogEvent(
        "call_refused",
        _WARNING,
        "A request was refused: the role of its key may not do that, or it cannot be read.",
        ("peer", "role", "kind", "method"),
        repeats=True,
    ),
    LogEvent(
        "clock_accepted",
        _WARNING,
        "The queue's clock was set to the host's time of day (`svc journal accept-clock`).",
        ("leap_s",),
    ),
    LogEvent(
        "clock_off",
        _WARNING,
        "The host's time of day is `offset_s` seconds ahead of the queue's clock at the start. If `held`, "
        "delays and retention go on from the journal's time until `svc journal accept-clock`.",
        ("offset_s", "held"),
    ),
    LogEvent("connection_closed", _DEBUG, "A connection to the manager ended.", ("peer", "reason")),
    LogEvent(
        "connection_cut_off",
        _WARNING,
        "The manager ended a connection that does not read its answers, or has too many bytes waiting.",
        ("peer", "reason"),
        repeats=True,
    ),
    LogEvent(
        "connection_refused",
        _WARNING,
        "A connection knew no key, had no certificate for TLS, or came when there were too many.",
        ("peer", "reason"),
        repeats=True,
    ),
    LogEvent(
        "consumer_died",
        _WARNING,
        "A consumer process ended otherwise than it should; it is replaced.",
        ("pid", "cause", "executing"),
    ),
    LogEvent(
        "consumer_killed",
        _WARNING,
        "The worker killed a consumer, for instance because its job ran over the timeout.",
        ("pid", "reason"),
    ),
    LogEvent("consumer_left", _INFO, "A consumer ended as it was told to, by a pill or a stop.", ("pilled",)),
    LogEvent(
        "consumer_not_started", _ERROR, "A consumer process could not be started; tried again.", ("error",)
    ),
    LogEvent(
        "consumer_renewed",
        _WARNING,
        "A task has changed its process in ways that cannot be put back; the consumer is replaced.",
        ("changed",),
    ),
    LogEvent("drain_resumed", _INFO, "A drain ended; consumers are given jobs again."),
    LogEvent("drain_started", _INFO, "Every consumer that asks is told to stop, until resumed."),
    LogEvent(
        "http_moved",
        _INFO,
        "The usual port of metrics and health is taken, so that they are served at a free one.",
        ("taken", "http"),
    ),
    LogEvent(
        "http_route_failed",
        _ERROR,
        "What answers a path of the HTTP server raised; the client got status 500.",
        ("path", "error"),
        repeats=True,
    ),
    LogEvent(
        "journal_contradicts_itself",
        _WARNING,
        "Some events of the journal contradict earlier ones, by a fault of the release that wrote them. They "
        "were passed over; keep a copy of the journal and report it.",
        ("passed_over",),
    ),
    LogEvent("journal_created", _INFO, "There was no journal, and a new, empty one was made.", ("path",)),
    LogEvent(
        "journal_error", _ERROR, "The journal failed; the manager ends, to recover from disk.", ("error",)
    ),
    LogEvent(
        "journal_loss_accepted",
        _WARNING,
        "The journal's end was lost; what is left is served, as `--accept-loss` asked, and a copy is kept.",
        ("copy",),
    ),
    LogEvent("journal_recovered", _INFO, "The journal was replayed at start.", ("jobs", "recovery_s")),
    LogEvent(
        "journal_space",
        _WARNING,
        "The journal's disk became nearly full (new jobs are refused), or is so no more.",
        ("full", "free_b", "limit_b"),
    ),
    LogEvent(
        "keys_not_read",
        _ERROR,
        "On SIGHUP a key or certificate could not be read; those from before stay active.",
        ("error",),
    ),
    LogEvent("keys_read", _INFO, "The keys were read again, on SIGHUP.", ("keys",)),
    LogEvent(
        "listening_without_tls",
        _WARNING,
        "The manager serves other hosts and TLS is off: who is on the path can read and change everything.",
        ("listen",),
    ),
    LogEvent(
        "log_lines_dropped",
        _WARNING,
        "So many records found no room because nobody read the log; the writer went on with its work.",
        ("count",),
    ),
    LogEvent(
        "log_message",
        _ANY,
        "Task code or a library wrote to Python's `logging`.",
        ("message", "logger"),
    ),
    LogEvent(
        "long_turn",
        _WARNING,
        "A turn of the manager's loop took long; most of it was for this command, call or part.",
        ("turn_s", "processor_s", "part", "role"),
        repeats=True,
    ),
    LogEvent(
        "manager_broken",
        _ERROR,
        "The queue's state broke for the third time within a minute, or could not be recovered in place; "
        "the manager ends. Nothing accepted is lost: report the fault, then start it again.",
        ("error",),
    ),
    LogEvent(
        "manager_memory",
        _WARNING,
        "The manager's memory came near its limit (new jobs are refused), or is so no more.",
        ("scarce", "used_b", "limit_b"),
    ),
    LogEvent("manager_reconnected", _INFO, "The manager answers again.", ("manager",)),
    LogEvent(
        "manager_stalled",
        _WARNING,
        "The manager was stopped, or kept from listening otherwise, for so long; no lease runs out for it.",
        ("stalled_s",),
    ),
    LogEvent(
        "manager_started",
        _INFO,
        "The manager serves.",
        ("listen", "http", "journal", "durability", "incarnation"),
    ),
    LogEvent("manager_stopped", _INFO, "The manager ended in order."),
    LogEvent(
        "manager_unreachable",
        ("warning", "debug"),
        "The manager does not answer; tried again for ever (warning: supervisor, debug: consumers).",
        ("manager", "error"),
    ),
    LogEvent(
        "message_not_handled",
        _ERROR,
        "A fault of svc's own while a message was read, before any of it was applied; its connection ended.",
        ("peer", "error_type"),
        repeats=True,
    ),
    LogEvent(
        "outcome_refused",
        _WARNING,
        "The manager did not record the outcome of an attempt, mostly because its lease had moved on.",
        ("code", "error"),
        repeats=True,
    ),
    LogEvent(
        "pickle_refused",
        _ERROR,
        "A pickled job was not signed for this worker's queue and task; it was not opened, and is dead. "
        "A stolen manager, or a submitter without the workers' pickle key.",
        ("job_id", "task", "queue"),
        repeats=True,
    ),
    LogEvent(
        "recovered_in_place",
        _WARNING,
        "After `state_broken` the manager has recovered the queue from its journal, and serves; clients and "
        "workers connect again by themselves.",
        ("jobs", "recovery_s", "incarnation"),
    ),
    LogEvent(
        "report_not_written",
        _ERROR,
        "The report of a broken state could not be written beside the journal.",
        ("error_type",),
    ),
    LogEvent(
        "report_refused",
        _WARNING,
        "The manager did not accept a report of the supervisor.",
        ("report", "code", "error"),
        repeats=True,
    ),
    LogEvent(
        "reports_undelivered",
        _WARNING,
        "The worker ended with reports that the manager has not had; leases will expire instead.",
        ("count",),
    ),
    LogEvent(
        "state_broken",
        _ERROR,
        "A fault of svc's own: the queue's state cannot be trusted, and is recovered from the journal in "
        "place. Send the file `report` to the maintainers; it has nothing of a job's content (there is none "
        "with `--durability memory`). `refused` says whether the command that did it is refused from now on.",
        ("place", "error_type", "command", "refused", "report"),
    ),
    LogEvent(
        "stop_signal_refused",
        _WARNING,
        "A task sent its worker SIGTERM or SIGINT; its job is charged with a crash, and the worker goes on.",
    ),
    LogEvent("tasks_not_loaded", _ERROR, "A consumer could not import the task modules.", ("error",)),
    LogEvent(
        "tunnel_broken",
        _WARNING,
        "`svc tunnel` could not reach the manager, or a connection through it broke.",
        ("manager", "error"),
        repeats=True,
    ),
    LogEvent("worker_drained", _INFO, "Every consumer has had its pill; the worker ends.", ("consumers",)),
    LogEvent("worker_joined", _INFO, "A worker's supervisor connected for the first time."),
    LogEvent("worker_left", _INFO, "The last process of a worker said goodbye."),
    LogEvent("worker_lost", _WARNING, "A worker has gone without a word; its jobs go back."),
    LogEvent(
        "worker_resumed",
        _INFO,
        "A drain ended before all consumers had gone; their places are filled again.",
        ("consumers",),
    ),
    LogEvent(
        "worker_started",
        _INFO,
        "The worker runs, and joins the manager.",
        ("consumers", "cpu", "cpu_source", "tasks"),
    ),
    LogEvent("worker_stopped", _INFO, "The worker ended in order."),
    LogEvent("worker_stopping", _INFO, "The worker was told to stop.", ("grace_s", "consumers")),
)

_INTRODUCTION = """\
# Log events

<!-- Made from service/svc/telemetry/events.py by: python -m svc.telemetry.events > docs/events.md -->

One record a line on stderr, at most 4096 bytes: JSON, or columns on a terminal. `event` is one of the names
below; field names end in their unit (`_s` seconds, `_b` bytes). What is stored under the name of a secret
appears as `[redacted]`; a field too long for the line ends in `…[+N]`, N being the characters that went.
"""


def repeating_events() -> frozenset[str]:
    """Return the names of the events that are throttled."""
    return frozenset(event.name for event in EVENTS if event.repeats)


def markdown() -> str:
    """Return the page `docs/events.md`."""
    return "\n".join(_page()) + "\n"


def _page() -> Iterator[str]:
    yield _INTRODUCTION
    yield "| any record | |"
    yield "|---|---|"
    yield from (f"| `{name}` | {meaning} |" for name, meaning in COMMON_FIELDS.items())
    yield ""
    yield "| event | level | meaning | fields |"
    yield "|---|---|---|---|"
    yield from (_row(event) for event in EVENTS)


def _row(event: LogEvent) -> str:
    fields = ", ".join(f"`{name}`" for name in event.fields)
    repeats = " At most one in 30 s." if event.repeats else ""
    return f"| `{event.name}` | {', '.join(event.levels)} | {event.meaning}{repeats} | {fields} |"


if __name__ == "__main__":
    sys.stdout.write(markdown())
