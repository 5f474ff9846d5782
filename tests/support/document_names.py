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
        "soft_timeout",
        "max_rss",
        "attempts",
        "started_at",
        "seconds",
        "worker",
        "content",
        "progress",
        "checkpoint_bytes",
        "checkpoint_at",
        "code",
        "peak_rss",
        "partial_results",
        "stream_bytes",
        "stream_number",
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
        "code",
        "peak_rss",
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
        "code",
        "round_trip_seconds",
        "read_ahead",
        "silent",
        "doubled",
    }
)
