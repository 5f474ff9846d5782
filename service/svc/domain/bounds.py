"""Bounds on the jobs, queues, keys and origins that the queue holds; beyond one, a submit is `queue_full`.

Each message names the bound that was reached and the setting that moves it.
"""

from __future__ import annotations

from svc.domain.job import PERMANENT_QUEUES, NewChunk
from svc.domain.queue_state import QueueState
from svc.domain.runs import Run


def exceeded(state: QueueState, chunk: NewChunk, run: Run) -> str | None:
    """Return a message about the bound that *chunk* would exceed after the jobs of *run*, or None."""
    ledger, limits = state.ledger, state.limits
    queue, more = chunk.terms.queue, run.count + len(chunk.bodies)
    counts = ledger.counts.get(queue)
    if (counts.unfinished if counts is not None else 0) + more > limits.max_queue_jobs:
        return _message(f"queue {queue!r} holds its {limits.max_queue_jobs} jobs", "--max-queue")
    if ledger.unfinished + more > limits.max_jobs:
        return _message(f"all queues together hold their {limits.max_jobs} jobs", "--max-jobs")
    if counts is None and len(ledger.counts) >= limits.max_queues and queue not in PERMANENT_QUEUES:
        return _message(
            f"there are {limits.max_queues} queues with jobs, and {queue!r} is none", "--max-queues"
        )
    if chunk.key and len(ledger.keys) + len(run.keys) >= limits.max_keys:
        return _message(f"the jobs that are kept have {limits.max_keys} keys", "--max-keys")
    if len(ledger.origins) >= limits.max_origins and run.begins_origin:
        return _message(f"jobs of {limits.max_origins} clients are known", "--max-origins")
    return None


def _message(bound: str, setting: str) -> str:
    return f"{bound}; submit again later (`svc manager {setting}`)"
