"""The verbs of `svc` as plain data: for each its function, its line in the help, and an example.

This module imports nothing for that, so `svc --help` answers before the command line's library is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class CliVerb(NamedTuple):
    """One command.

    Attributes:
        runs: its function, as `module:function` in this package.
        summary: its line in the list.
        example: one call of it.
        settings: the class in `svc.settings` with its settings; empty if it has none.
    """

    runs: str
    summary: str
    example: str
    settings: str = ""


class CliGroup(NamedTuple):
    """Commands under one name: the group's line in the list, and its commands in the order of the help.

    A name of two words is that of a command beside the one that the first word names.
    """

    summary: str
    verbs: Mapping[str, CliVerb | CliGroup]


#: `svc jobs`.
JOBS = CliGroup(
    "Look at jobs; cancel, requeue or remove them.",
    {
        "list": CliVerb(
            "jobs:list_jobs",
            "List jobs, newest first.",
            "svc jobs list --state dead --queue mail",
            "RemoteSettings",
        ),
        "show": CliVerb(
            "jobs:show",
            "Show all there is to know of jobs.",
            "svc jobs show k3v9x0m2q7w1z-0",
            "RemoteSettings",
        ),
        "cancel": CliVerb(
            "jobs:cancel",
            "Cancel jobs that wait or run.",
            "svc jobs cancel k3v9x0m2q7w1z-0",
            "RemoteSettings",
        ),
        "requeue": CliVerb(
            "jobs:requeue", "Make dead jobs ready again.", "svc jobs requeue --queue mail", "RemoteSettings"
        ),
        "purge": CliVerb(
            "purge:purge",
            "Remove jobs that have ended.",
            "svc jobs purge --state dead --older-than 7d",
            "RemoteSettings",
        ),
    },
)


#: `svc auth`.
AUTH = CliGroup(
    "Make keys and certificates.",
    {
        "generate": CliVerb(
            "auth:generate",
            "Make a new authkey, or keys that may do less.",
            "svc auth generate --output secrets/svc_authkey",
        ),
        "ca": CliVerb(
            "certificates:ca",
            "Make a small CA, a certificate for the manager and one for its workers and clients.",
            "svc auth ca secrets/tls --names queue-host,10.0.0.7",
        ),
    },
)


#: `svc journal`.
JOURNAL = CliGroup(
    "Look at, check, back up, restore or move a journal.",
    {
        "info": CliVerb(
            "journal:info",
            "Say what a journal holds.",
            "svc journal info --journal journal.sqlite",
            "JournalSettings",
        ),
        "verify": CliVerb(
            "journal:verify",
            "Check that a journal is whole.",
            "svc journal verify --journal journal.sqlite",
            "JournalSettings",
        ),
        "backup": CliVerb(
            "journal:backup", "Copy the journal of a running manager.", "svc journal backup", "RemoteSettings"
        ),
        "accept-clock": CliVerb(
            "journal:accept_clock",
            "Set a manager's clock to its host's time of day.",
            "svc journal accept-clock",
            "RemoteSettings",
        ),
        "restore": CliVerb(
            "journal:restore",
            "Make a journal from a backup.",
            "svc journal restore backups/monday.db --journal journal.sqlite",
            "NewJournalSettings",
        ),
        "copy": CliVerb(
            "journal:copy",
            "Copy a journal to another place, or move it there.",
            "svc journal copy journal.sqlite nats://n1:4222,n2:4222,n3:4222/queue --move",
            "NewStreamSettings",
        ),
    },
)


#: `svc`.
PROGRAM = CliGroup(
    "Python's own multiprocessing queue as a durable service.",
    {
        "demo": CliVerb("demo:demo", "Run the textbook program on svc, end to end.", "svc demo"),
        "dev": CliVerb(
            "dev:dev",
            "Run a manager and a worker in this terminal.",
            "svc dev --tasks mytasks",
            "DevSettings",
        ),
        "manager": CliVerb(
            "manager:manager",
            "Run the manager, until it is stopped.",
            "svc manager --listen 0.0.0.0:7077 --journal /var/lib/svc/journal.sqlite",
            "ManagerSettings",
        ),
        "manager handover": CliVerb(
            "handover:handover",
            "Have a standby manager take the lead.",
            "svc manager handover",
            "RemoteSettings",
        ),
        "worker": CliVerb(
            "worker:worker",
            "Run a worker, until it is stopped or drained.",
            "svc worker --manager queue-host:7077 --tasks mytasks --consumers 4",
            "WorkerSettings",
        ),
        "submit": CliVerb(
            "submit:submit",
            "Submit jobs; print their ids or results.",
            "svc submit mytasks:add 2 3 --wait",
            "RemoteSettings",
        ),
        "run": CliVerb(
            "run:run",
            "Run shell commands as jobs.",
            "svc run --each-line files.txt --wait -- gzip -k {}",
            "RemoteSettings",
        ),
        "results": CliVerb(
            "results:results",
            "Print results as the jobs end.",
            "svc results --follow --ndjson",
            "RemoteSettings",
        ),
        "wait": CliVerb(
            "wait:wait",
            "Wait until jobs have ended.",
            "svc wait --from ids",
            "RemoteSettings",
        ),
        "logs": CliVerb(
            "logs:logs",
            "Print the output of a job.",
            "svc logs k3v9x0m2q7w1z-0 --follow",
            "RemoteSettings",
        ),
        "jobs": JOBS,
        "queues": CliVerb(
            "status:queues",
            "List queues, their counts and their ages.",
            "svc queues --json",
            "RemoteSettings",
        ),
        "workers": CliVerb("status:workers", "List the connected workers.", "svc workers", "RemoteSettings"),
        "status": CliVerb(
            "status:status", "Show the whole service at a glance.", "svc status --json", "RemoteSettings"
        ),
        "drain": CliVerb(
            "drain:drain",
            "Let every consumer finish, and end.",
            "svc drain --timeout 10m",
            "ConnectionSettings",
        ),
        "resume": CliVerb(
            "drain:resume", "End a drain: consumers get jobs again.", "svc resume", "ConnectionSettings"
        ),
        "metrics": CliVerb(
            "status:metrics", "Print or serve the manager's metrics.", "svc metrics", "RemoteSettings"
        ),
        "health": CliVerb(
            "status:health", "Ask whether a manager or worker is ready.", "svc health --http 127.0.0.1:9101"
        ),
        "tunnel": CliVerb(
            "tunnel:tunnel",
            "Let plain clients reach a manager that asks for TLS.",
            "svc tunnel --listen 127.0.0.1:7077 --manager queue-host:7077",
            "TunnelSettings",
        ),
        "journal": JOURNAL,
        "auth": AUTH,
    },
)
