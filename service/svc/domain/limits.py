"""The bounds that the queue keeps, each with its default.

Without msgspec, so that the command line can check its flags before it needs that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

#: Jobs that one request may lease. A consumer asks for jobs of a few milliseconds; this bounds their number
#: if each of them takes almost no time.
GRANT_JOBS: Final = 256
#: What every number of a job is at most: msgpack and the numbers of other languages hold it exactly.
NUMBER_MAX: Final = (1 << 53) - 1
#: Consumers of one worker.
CONSUMERS_MAX: Final = 10_000
#: Bytes that no message from the network may exceed, whatever the settings say.
MESSAGE_BYTES_MAX: Final = 64 * 1024 * 1024
#: Seconds of any duration: a hundred years.
SECONDS_MAX: Final = 100 * 365 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Limits:
    """The amounts that the queue holds at most, and the times for which it holds them.

    Attributes:
        lease_seconds: a lease ends this long after its worker was last heard of.
        max_job_bytes: size of one job's arguments, and of one result.
        max_queue_jobs: unfinished jobs of one queue.
        max_jobs: unfinished jobs of all queues together.
        max_queues: queues that hold jobs, or with a finished job that is kept.
        max_keys: idempotency keys of the jobs that are kept.
        max_origins: clients whose jobs are kept, or were kept in the last day; one with one job takes 1.5 kB.
        retention_seconds: how long a finished job keeps its result.
        retention_jobs: finished jobs that are kept, the newest; chunks with dead jobs may have as many more.
        dead_retention_seconds: how long a dead job is kept.
        window_bytes: arguments of waiting jobs that are held in memory; the rest stay in the journal.
        grant_jobs: jobs that one request may lease.
        member_leases: leases from which on one member gets no more: to give so many back takes 25 ms.
        grant_bytes: arguments that one request may lease, once there is one job, and that are read for it.
        merge_seconds: how long jobs that were submitted one by one wait before they are put into one row.
        reconnect_seconds: after a restart, how long consumers may take to come back for the jobs that
            they still run before these are handed to others.
        suspicion_budget: suspicions with which a job is dead; 0 for never (see `suspicion`).
        min_free_bytes: space on the journal's disk below which new jobs are refused; acknowledgements
            are still taken.
    """

    lease_seconds: float = 15.0
    max_job_bytes: int = 16 * 1024 * 1024
    max_queue_jobs: int = 10_000_000
    max_jobs: int = 20_000_000
    max_queues: int = 10_000
    max_keys: int = 5_000_000
    max_origins: int = 200_000
    retention_seconds: float = 24 * 3600.0
    retention_jobs: int = 1_000_000
    dead_retention_seconds: float = 30 * 24 * 3600.0
    window_bytes: int = 64 * 1024 * 1024
    grant_jobs: int = GRANT_JOBS
    member_leases: int = 2048
    grant_bytes: int = 4 * 1024 * 1024
    merge_seconds: float = 60.0
    reconnect_seconds: float = 3.0
    suspicion_budget: int = 5
    min_free_bytes: int = 64 * 1024 * 1024
