"""The bounds that the queue keeps, each with its default.

Without msgspec, so that the command line can check its flags before it needs that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from svc.declarations import CENTURY, DAYS_MAX, DISK_MAX, count, seconds, size

#: Jobs that one request may lease. A consumer asks for jobs of a few milliseconds; this bounds their number
#: if each of them takes almost no time.
GRANT_JOBS: Final = 256
#: The largest number of a job: msgpack and the numbers of other languages hold it exactly.
NUMBER_MAX: Final = (1 << 53) - 1
#: Consumers of one worker.
CONSUMERS_MAX: Final = 10_000
#: Bytes that no message from the network may exceed, whatever the settings say.
MESSAGE_BYTES_MAX: Final = 64 * 1024 * 1024
#: Seconds of any duration: a hundred years.
SECONDS_MAX: Final = DAYS_MAX * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Limits:
    """The amounts that the queue holds at most, and the times for which it holds them.

    Most are settings of `svc manager` and declared as such; these are not:

    Attributes:
        window_bytes: arguments of waiting jobs that are held in memory; the rest stay in the journal.
        grant_jobs: jobs that one request may lease.
        member_leases: leases from which on one member gets no more: to give so many back takes 25 ms.
        grant_bytes: arguments that one request may lease, once there is one job, and that are read for it.
        merge_seconds: how long jobs that were submitted one by one wait before they are put into one row.
        reconnect_seconds: after a restart, how long consumers may take to come back for the jobs that
            they still run before these are handed to others.
    """

    lease_seconds: float = seconds(
        "15s", "1s", "1d", "Time after which a silent worker loses its jobs.", name="lease"
    )
    retention_seconds: float = seconds(
        "1d", "0", CENTURY, "Time for which finished jobs are kept.", name="retention"
    )
    dead_retention_seconds: float = seconds(
        "30d", "0", CENTURY, "Time for which dead jobs are kept.", name="dead_retention"
    )
    retention_jobs: int = count("1000000", "0", "Finished jobs kept at most.", name="retain_count")
    max_queue_jobs: int = count("10000000", "1", "Unfinished jobs of one queue.", name="max_queue")
    max_jobs: int = count("20000000", "1", "Unfinished jobs of all queues.")
    max_queues: int = count("10000", "1", "Queues that hold or keep jobs.")
    max_keys: int = count("5000000", "1", "Idempotency keys of kept jobs.")
    max_origins: int = count("200000", "1", "Clients whose jobs are kept; each takes 1.5 kB of memory.")
    max_job_bytes: int = size(
        "16MiB", "1", f"{MESSAGE_BYTES_MAX >> 20}MiB", "Size of one job's arguments, and of one result."
    )
    suspicion_budget: int = count(
        "5", "0", "Workers that a job may lose while it runs alone, before it is dead; 0 for no end."
    )
    min_free_bytes: int = size(
        "64MiB", "0", DISK_MAX, "Disk space below which new jobs are refused.", name="min_free"
    )
    window_bytes: int = 64 * 1024 * 1024
    grant_jobs: int = GRANT_JOBS
    member_leases: int = 2048
    grant_bytes: int = 4 * 1024 * 1024
    merge_seconds: float = 60.0
    reconnect_seconds: float = 3.0
