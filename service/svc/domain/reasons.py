"""Why a job waits, in one sentence for people."""

from __future__ import annotations

from svc.domain.chunk import Chunk
from svc.domain.job import ALONE, IDLE, ITEM, Terms
from svc.domain.job_records import NO_RECORD
from svc.domain.known_tasks import not_accepted
from svc.domain.lifecycle import JobState
from svc.domain.queue_state import QueueState


def reason_of(state: QueueState, chunk: Chunk, index: int) -> str:
    """Return why a job waits, or "" if it does not."""
    job_state = chunk.state(index)
    if job_state == JobState.SCHEDULED:
        retrying = chunk.records.get(index, NO_RECORD).due is not None
        return "waits for its retry after a failed attempt" if retrying else "waits for its delay to pass"
    if job_state != JobState.READY:
        return ""
    if blocked := _block(state, chunk.terms):
        return blocked
    return IDLE if state.ledger.losses.of(chunk, index) is None else ALONE


def _block(state: QueueState, terms: Terms) -> str:
    """Return why no consumer takes a ready job on these terms, however idle it is; or ""."""
    known = state.known_tasks
    if "" in state.ledger.drains.in_force:
        return "the service is draining; `svc resume` ends that"
    if terms.task == ITEM:
        return "plain data: only a plain client takes it"
    if not state.consumers:
        return "no worker is connected"
    if not known.serves(terms.queue):
        return f"no connected worker takes jobs from the queue {terms.queue!r}"
    if not known.has(terms.queue, terms.task):
        return f"no connected worker of queue {terms.queue!r} knows the task {terms.task!r}"
    return "" if known.accepts(terms) else not_accepted(terms)
