"""The bounds that the queue keeps, each with its default.

Without msgspec, so that the command line can check its flags before it needs that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from svc.declarations import CENTURY, DAYS_MAX, DISK_MAX, count, parse_size, seconds, size, switch

#: Jobs that one request may lease. A consumer asks for jobs of a few milliseconds; this bounds their number
#: if each of them takes almost no time. A consumer gets so many in a round trip at most.
GRANT_JOBS: Final = 1024
#: The largest number of a job: msgpack and the numbers of other languages hold it exactly.
NUMBER_MAX: Final = (1 << 53) - 1
#: Consumers of one worker.
CONSUMERS_MAX: Final = 10_000
#: Bytes that no message from the network may exceed, whatever the settings say.
MESSAGE_BYTES_MAX: Final = 64 * 1024 * 1024
#: Bytes of the rest of a message beside the arguments or the result that it carries.
MESSAGE_SPARE: Final = 64 * 1024
#: Bytes of one job's arguments, or of one result, that a message carries.
BODY_BYTES_MAX: Final = MESSAGE_BYTES_MAX - MESSAGE_SPARE
#: Seconds that a task has to end after its cancel, if nobody says otherwise.
CANCEL_GRACE_SECONDS: Final = 5.0
#: Bytes that a limit on the memory of an attempt has at least.
MEMORY_MIN: Final = 1024 * 1024
#: Bytes that a user may name as that limit at most. The queue itself takes up to `NUMBER_MAX`.
MEMORY_MAX: Final = parse_size(DISK_MAX)
#: The least seconds of a timeout that a task or a job may have: none at all ends it before it begins.
TIMEOUT_MIN: Final = 0.001
#: Seconds of any duration: a hundred years.
SECONDS_MAX: Final = DAYS_MAX * 24 * 3600.0
#: Tokens of one incarnation of a manager.
TOKENS_PER_INCARNATION: Final = 1 << 40


def incarnation_of(token: int) -> int:
    """Return the incarnation of the manager that granted *token*."""
    return token // TOKENS_PER_INCARNATION


@dataclass(frozen=True, slots=True)
class Limits:
    """The amounts that the queue holds at most, and the times for which it holds them.

    Most are settings of `svc manager` and declared as such; these are not:

    Attributes:
        window_bytes: arguments of waiting jobs that are held in memory; the rest stay in the journal.
        grant_jobs: jobs that one request may lease.
        grant_leases: leases that one request may get, as each takes a step of the manager; those of jobs that
            were submitted together have one.
        member_leases: leases from which on one member gets no more, as each takes memory.
        all_leases: leases of all members together, from which on only those with few of them get more.
        grant_bytes: arguments that one request may lease, once there is one job, and that are read for it.
        merge_seconds: how long jobs that were submitted one by one wait before they are put into one row.
        parked_bytes: bytes of the jobs of plain clients' puts that wait for room, and as many of all other
            waiting requests.
        piece_bytes: bytes of the pieces of large values.
        unclaimed_seconds: how long a large value is kept for which no job or result comes.
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
    max_queue_jobs: int = count("10000000", "1", "Waiting jobs of one queue.", name="max_queue")
    max_jobs: int = count("20000000", "1", "Unfinished jobs of all queues.")
    max_queues: int = count("10000", "1", "Queues that hold or keep jobs.")
    max_keys: int = count("5000000", "1", "Idempotency keys of kept jobs.")
    max_origins: int = count("200000", "1", "Clients whose jobs are kept; each takes 1.5 kB of memory.")
    max_job_bytes: int = size(
        "16MiB", "1", f"{MESSAGE_BYTES_MAX >> 20}MiB", "Size of one job's arguments, and of one result."
    )
    stream_value_bytes: int = size(
        "1MiB", "1", "16MiB", "Size of one partial result of a job.", name="max_stream_value"
    )
    stream_values: int = count("100000", "1", "Partial results of one job.", name="max_stream_values")
    stream_bytes: int = size(
        "64MiB", "1", DISK_MAX, "Size of all partial results of one job.", name="max_stream_bytes"
    )
    max_value_bytes: int = size(
        "1GiB", "0", "1GiB", "Size of bytes or a file over that, which travel in pieces; 0 for none."
    )
    all_values_bytes: int = size(
        "16GiB", "0", DISK_MAX, "Size of all those together; a quarter is for results.", name="max_values"
    )
    suspicion_budget: int = count(
        "5", "0", "Workers that a job may lose while it runs alone, before it is dead; 0 for no end."
    )
    min_free_bytes: int = size(
        "64MiB", "0", DISK_MAX, "Disk space below which new jobs are refused.", name="min_free"
    )
    redact: bool = switch("Show nobody arguments, results and texts of errors in `svc jobs show`.")
    window_bytes: int = 64 * 1024 * 1024
    grant_jobs: int = GRANT_JOBS
    grant_leases: int = 128
    member_leases: int = 2048
    all_leases: int = 256 * 1024
    grant_bytes: int = 4 * 1024 * 1024
    merge_seconds: float = 60.0
    parked_bytes: int = MESSAGE_BYTES_MAX
    piece_bytes: int = 1024 * 1024
    unclaimed_seconds: float = 60.0
    reconnect_seconds: float = 3.0
