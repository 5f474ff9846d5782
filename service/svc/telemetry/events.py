"""The catalogue of log events: every event that svc logs, its meaning, and its fields.

`docs/events.md` is made from this (`python -m svc.telemetry.events > docs/events.md`), and a test
compares it with the log calls in the source. Those of workers alone are in `worker_events`. Field names end
in their unit: `_s` seconds, `_b` bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import MappingProxyType

from svc.telemetry.log_event import DEBUG, ERROR, INFO, WARNING, LogEvent
from svc.telemetry.worker_events import WORKER_EVENTS

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


_ANY = ("debug", "info", "warning", "error")

_OTHERS: tuple[LogEvent, ...] = (
    LogEvent(
        "accept_paused",
        ERROR,
        "The manager could not accept a connection, mostly for want of file descriptors; it tries again.",
        ("error",),
        repeats=True,
    ),
    LogEvent("backup_failed", WARNING, "An online backup was not made.", ("path", "error")),
    LogEvent("backup_made", INFO, "An online backup was copied, synced and checked.", ("path", "size_b")),
    LogEvent(
        "call_refused",
        WARNING,
        "A request was refused: its key may not do that, it cannot be read, or no client of ours sends it.",
        ("peer", "role", "kind", "method"),
        repeats=True,
    ),
    LogEvent(
        "clock_accepted",
        WARNING,
        "The queue's clock was set to the host's time of day (`svc journal accept-clock`).",
        ("leap_s",),
    ),
    LogEvent(
        "clock_off",
        WARNING,
        "The host's time of day is `offset_s` seconds ahead of the queue's clock at the start. If `held`, "
        "delays and retention go on from the journal's time until `svc journal accept-clock`.",
        ("offset_s", "held"),
    ),
    LogEvent("connection_closed", DEBUG, "A connection to the manager ended.", ("peer", "reason")),
    LogEvent(
        "connection_cut_off",
        WARNING,
        "The manager ended a connection that does not read its answers, or has too many bytes waiting.",
        ("peer", "reason"),
        repeats=True,
    ),
    LogEvent(
        "connection_refused",
        WARNING,
        "A connection knew no key, had no certificate for TLS, or came when there were too many.",
        ("peer", "reason"),
        repeats=True,
    ),
    LogEvent(
        "descriptors_short",
        WARNING,
        "The process may have fewer file descriptors than --max-connections needs, and lets fewer peers in. "
        "Raise the hard limit (LimitNOFILE of systemd, --ulimit nofile of Docker), or allow fewer.",
        ("limit", "needed", "connections"),
    ),
    LogEvent("drain_resumed", INFO, "A drain ended; consumers are given jobs again."),
    LogEvent("drain_started", INFO, "Every consumer that asks is told to stop, until resumed."),
    LogEvent(
        "http_moved",
        INFO,
        "The usual port of metrics and health is taken, so that they are served at a free one.",
        ("taken", "http"),
    ),
    LogEvent(
        "http_route_failed",
        ERROR,
        "What answers a path of the HTTP server raised; the client got status 500.",
        ("path", "error"),
        repeats=True,
    ),
    LogEvent(
        "http_route_late",
        WARNING,
        "What answers a path of the HTTP server gave no answer in time; the client got status 503.",
        ("path",),
        repeats=True,
    ),
    LogEvent(
        "jobs_purged",
        INFO,
        "Jobs that had ended were removed on request; a long purge has a line at its begin and its end.",
        ("done", "jobs", "which"),
    ),
    LogEvent(
        "journal_contradicts_itself",
        WARNING,
        "Some events of the journal contradict earlier ones, by a fault of the release that wrote them. They "
        "were passed over; keep a copy of the journal and report it.",
        ("passed_over",),
    ),
    LogEvent("journal_created", INFO, "There was no journal, and a new, empty one was made.", ("path",)),
    LogEvent(
        "journal_error", ERROR, "The journal failed; the manager ends, to recover from disk.", ("error",)
    ),
    LogEvent(
        "journal_loss_accepted",
        WARNING,
        "The journal's end was lost; what is left is served, as `--accept-loss` asked, and a copy is kept.",
        ("copy",),
    ),
    LogEvent("journal_recovered", INFO, "The journal was replayed at start.", ("jobs", "recovery_s")),
    LogEvent(
        "journal_space",
        WARNING,
        "The journal's disk, or its stream's servers, became nearly full (new jobs are refused), or are so "
        "no more.",
        ("full", "free_b", "limit_b"),
    ),
    LogEvent(
        "keys_differ",
        ERROR,
        "A standby ends: the `leader` of its journal has none of its keys. Two deployments use one stream, "
        "or the keys were changed, and the leader was not told to read them.",
        ("leader",),
    ),
    LogEvent(
        "keys_not_read",
        ERROR,
        "On SIGHUP a key or certificate could not be read; those from before stay active.",
        ("error",),
    ),
    LogEvent("keys_read", INFO, "The keys were read again, on SIGHUP.", ("keys",)),
    LogEvent(
        "journal_answers",
        INFO,
        "The servers of a replicated journal answer the leader again; it had waited for `silent_s`.",
        ("servers", "silent_s"),
    ),
    LogEvent("journal_at_risk", WARNING, "A loss of a server may lose jobs, for this `reason`.", ("reason",)),
    LogEvent(
        "journal_awaited",
        WARNING,
        "The servers of a replicated journal have not answered a start for 3 s; it waits for 30 s at most.",
        ("servers",),
    ),
    LogEvent(
        "journal_silent",
        WARNING,
        "The servers of a replicated journal have taken nothing of the leader for `silent_s`; told each "
        "minute. `reason` is what they, or the connection to them, said last.",
        ("servers", "silent_s", "reason"),
    ),
    LogEvent(
        "lead_handed_over",
        INFO,
        "A leader has stopped serving. If it has `freed` its key, a standby leads at once; else, as NATS did "
        "not answer, three seconds after its last renewal.",
        ("freed",),
    ),
    LogEvent(
        "lead_not_taken",
        WARNING,
        "An operator has handed over the lead, and no standby has taken it within a second: it was lost in "
        "that moment. The old leader goes on as a standby, and so leads again if nobody else does.",
        (),
    ),
    LogEvent(
        "lead_lost",
        WARNING,
        "Another manager has taken the lead, as this one could not renew the key in time. It ends.",
        ("leader",),
    ),
    LogEvent(
        "lead_taken",
        INFO,
        "A manager has begun its term in the stream: no earlier leader can write. It serves at "
        "`manager_started`.",
        ("term",),
    ),
    LogEvent(
        "listening_without_tls",
        WARNING,
        "The manager serves other hosts and TLS is off: who is on the path can read and change everything.",
        ("listen",),
    ),
    LogEvent(
        "log_lines_dropped", WARNING, "So many lines found no room, as nobody read the log.", ("count",)
    ),
    LogEvent(
        "log_message", _ANY, "Task code or a library wrote to Python's `logging`.", ("message", "logger")
    ),
    LogEvent(
        "long_turn",
        WARNING,
        "A turn of the manager's loop took long; most of it was for this command, call or part.",
        ("turn_s", "processor_s", "part", "role"),
        repeats=True,
    ),
    LogEvent(
        "longest_turn",
        WARNING,
        "The longest turn so far, by processor time. It is told again once one takes a quarter more.",
        ("turn_s", "processor_s", "part", "role"),
    ),
    LogEvent(
        "manager_broken",
        ERROR,
        "The queue's state broke for the third time within a minute, or could not be recovered in place; "
        "the manager ends. Nothing accepted is lost: report the fault, then start it again.",
        ("error",),
    ),
    LogEvent(
        "manager_memory",
        WARNING,
        "The manager's memory came near its limit (new jobs are refused), or is so no more.",
        ("scarce", "used_b", "limit_b"),
    ),
    LogEvent(
        "manager_stalled",
        WARNING,
        "The manager was stopped, or kept from listening otherwise, for so long; no lease runs out for it.",
        ("stalled_s",),
    ),
    LogEvent(
        "manager_started",
        INFO,
        "The manager serves.",
        ("listen", "http", "journal", "durability", "incarnation"),
    ),
    LogEvent("manager_stopped", INFO, "The manager ended in order."),
    LogEvent(
        "message_not_handled",
        ERROR,
        "A fault of svc's own while a message was read, before any of it was applied; its connection ended.",
        ("peer", "error_type"),
        repeats=True,
    ),
    LogEvent(
        "mirror_kept",
        ERROR,
        "The stream is gone, or has lost messages, and this manager's mirror of it stays at `path`: "
        "`svc journal copy` makes a stream of it.",
        ("path",),
    ),
    LogEvent(
        "mirror_made_anew",
        WARNING,
        "A standby makes its mirror of the stream anew: it lags behind a purge or differs from the leader's.",
        ("reason", "position"),
    ),
    LogEvent(
        "mirror_stopped",
        ERROR,
        "A standby cannot follow the stream any more, and so cannot take over.",
        ("error",),
    ),
    LogEvent(
        "output_not_kept",
        WARNING,
        "The file with the output of tasks could not be read or written; jobs are not affected.",
        ("path", "error"),
        repeats=True,
    ),
    LogEvent(
        "peer_turned_away",
        INFO,
        "A standby ended a connection: the peer finds the `leader` by another address.",
        ("peer", "leader"),
        repeats=True,
    ),
    LogEvent(
        "recovered_in_place",
        WARNING,
        "After `state_broken` the manager has recovered the queue from its journal, and serves; clients and "
        "workers connect again by themselves.",
        ("jobs", "recovery_s", "incarnation"),
    ),
    LogEvent(
        "report_not_written",
        ERROR,
        "The report of a broken state could not be written beside the journal.",
        ("error_type",),
    ),
    LogEvent(
        "standing_by",
        INFO,
        "A manager on a replicated journal is a standby: it takes over if the leader goes.",
        ("listen", "http"),
    ),
    LogEvent(
        "state_broken",
        ERROR,
        "A fault of svc's own: the queue's state cannot be trusted, and is recovered from the journal in "
        "place. Send the file `report` to the maintainers; it has nothing of a job's content (there is none "
        "with `--durability memory`). `refused` says whether the command that did it is refused from now on.",
        ("place", "error_type", "command", "refused", "report"),
    ),
    LogEvent(
        "takeover_begun",
        INFO,
        "A standby has the key of the leader, which was `freed` by a hand-over, or has vanished. It reads "
        "the last `lag` messages of the stream, then begins its term (`lead_taken`).",
        ("freed", "lag"),
    ),
    LogEvent(
        "tunnel_broken",
        WARNING,
        "`svc tunnel` could not reach the manager, or a connection through it broke.",
        ("manager", "error"),
        repeats=True,
    ),
    LogEvent(
        "worker_joined", INFO, "A worker's supervisor connected for the first time. At most 1,000 in 30 s."
    ),
    LogEvent("worker_left", INFO, "The last process of a worker said goodbye. At most 1,000 in 30 s."),
    LogEvent(
        "worker_lost",
        WARNING,
        "A worker has gone without a word. Since it was last heard of, `jobs` that it held went back. "
        "At most 1,000 in 30 s.",
        ("host", "jobs"),
    ),
    LogEvent(
        "worker_name_doubled",
        WARNING,
        "Two processes on these `hosts` are workers of one name. They take each other's place, and their "
        "consumers end or wait: give each worker a `--name` of its own. Told once. At most 1,000 in 30 s.",
        ("hosts",),
    ),
    LogEvent(
        "worker_silent",
        WARNING,
        "A connected worker was not heard of for a lease time: `jobs` that it held went back, and it gets "
        "none until it is heard of. At most 1,000 in 30 s.",
        ("host", "jobs"),
    ),
)

#: All log events, by name.
EVENTS: tuple[LogEvent, ...] = tuple(sorted((*_OTHERS, *WORKER_EVENTS), key=lambda event: event.name))

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
