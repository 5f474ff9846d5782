"""The names in the JSON of jobs, attempts and workers, on which scripts rely: none is renamed or removed."""

from __future__ import annotations

JOB = frozenset(
    {
        "id",
        "task",
        "queue",
        "state",
        "reason",
        "priority",
        "codec",
        "key",
        "submitted_at",
        "due_at",
        "finished_at",
        "consumer",
        "failures",
        "crashes",
        "interruptions",
        "suspicions",
        "suspect",
        "retries",
        "timeout",
        "attempts",
    }
)
ATTEMPT = frozenset(
    {
        "number",
        "at",
        "cause",
        "seconds",
        "consumer",
        "error",
    }
)
WORKER = frozenset(
    {
        "name",
        "host",
        "pid",
        "release",
        "consumers",
        "busy",
        "restarts",
        "leased",
        "queues",
        "tasks",
        "connected_at",
        "seen_at",
        "draining",
        "http",
        "address",
    }
)
