"""Upkeep over time: due jobs, leases whose holder is gone, and jobs past their retention."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from svc.domain import enrolment, suspicion
from svc.domain import events as e
from svc.domain.chunk import Chunk
from svc.domain.job import PERMANENT_QUEUES
from svc.domain.ledger import Ledger
from svc.domain.members import ON_TRIAL, RECONNECT_GRACE, Member, Worker
from svc.domain.pieces import drop_unclaimed
from svc.domain.queue_state import POLL_SECONDS, QueueState
from svc.domain.replay import merge, note_emptied
from svc.domain.settlement import give_back_all

#: Chunks that one tick forgets at most, so that retention never stalls the loop.
FORGET_CHUNKS_MAX = 200
#: Jobs of a chunk that is forgotten in about the time that a chunk of one takes, and by how many more of them
#: a job with a history counts.
SMALL_CHUNK_JOBS = 250
RECORD_COST_JOBS = 20
#: Members whose leases one look takes away without giving them all back: each may take a tenth of a ms.
REAPED_MAX = 16
#: Seconds between two searches for leases whose holder no other rule reaches.
SWEEP_SECONDS = 1.0
#: Seconds between two looks at the most: what nothing announces is seen by then.
IDLE_SECONDS = 5.0
#: Outcomes that one tick checks for forgotten ones: that takes some milliseconds.
SWEPT_OUTCOMES = 20_000
#: Chunks that one tick merges at most: where their bodies have to be read for it, each takes some 3 ms.
MERGE_CHUNKS_MAX = 4
#: Seconds for which an origin, all of whose jobs are forgotten, is still known.
ORIGIN_KEPT_SECONDS = 24 * 3600.0


def tick(state: QueueState, now: float) -> None:
    """Do the work that is due.

    A worker's supervisor reports by `extend`. A consumer's jobs go back if that report does not come for a
    lease time, or if neither the supervisor nor the consumer has been connected for half a second. Time is
    measured on the manager's own clock, which never runs backwards and does not follow changes of the host's
    time of day.
    """
    state.looked_at = now
    state.returns.go_on(now)
    state.wake_due(now)
    if state.absentees and now >= state.absentees.until:
        enrolment.give_up(state, now)
    suspects = state.suspects
    if suspects.running or suspects.trials or suspects.lost_at:
        suspicion.judge(state, now)
    _reap_all(state, now)
    if now >= state.next_sweep:
        state.next_sweep = now + SWEEP_SECONDS
        state.sweep_due = False
        _sweep(state, now)
    _retire(state, now)
    if state.ledger.large.unclaimed:
        drop_unclaimed(state, now)
    _merge(state, now)
    state.upkeep_at = min(
        now if state.returns else math.inf,
        state.scheduled.next_at,
        state.absentees.until or math.inf,
        max(now + POLL_SECONDS, _next_look(state, now)),
    )


def _next_look(state: QueueState, now: float) -> float:
    """Return when work may be due next, beside jobs that are due; what comes sooner lowers `upkeep_at`."""
    ledger, limits, suspects = state.ledger, state.limits, state.suspects
    workers = state.workers.values()
    if suspects.trials or suspects.running or state.scheduled.has_unswept or ledger.has_stale_outcomes:
        return now
    if any(not member.connected for worker in workers for member in worker.members()):
        return now
    grown = ledger.grown[0].at_of(0) if ledger.grown else now
    finished = ledger.finished[0][0] if ledger.finished else now
    kept_dead = ledger.kept_dead[0][0] if ledger.kept_dead else now
    emptied = ledger.emptied[0][0] if ledger.emptied else now
    return min(
        now + IDLE_SECONDS,
        grown + limits.merge_seconds,
        finished + limits.retention_seconds,
        kept_dead + limits.dead_retention_seconds,
        emptied + ORIGIN_KEPT_SECONDS,
        state.next_sweep if state.sweep_due else math.inf,
        *(worker.expires for worker in workers),
    )


def pause(state: QueueState, seconds: float, now: float) -> None:
    """Do not count the last *seconds* against leases: the manager could not receive any message in them.

    Whoever was heard of before that gets the rest of the lease time, or of the grace, from now on. So do
    those that are expected to come back after a restart.
    """
    state.upkeep_at = 0.0
    absentees = state.absentees
    if absentees:
        absentees.until = min(absentees.until + seconds, now + state.limits.reconnect_seconds)
    for worker in state.workers.values():
        worker.expires = min(worker.expires + seconds, now + state.limits.lease_seconds)
        for member in worker.members():
            member.gone_at = min(member.gone_at + seconds, now)


def _reap_all(state: QueueState, now: float) -> None:
    """Give back the jobs of consumers that are gone, until those of some have to wait for the next look."""
    most = len(state.returns) + REAPED_MAX
    for worker in list(state.workers.values()):
        if len(state.returns) >= most:
            return
        _reap(state, worker, now, most)


def _reap(state: QueueState, worker: Worker, now: float, most: int) -> None:
    """Give back the jobs of a worker's consumers that are gone; end if those of *most* members wait."""
    silent = worker.is_silent(now)
    for member in list(worker.consumers.values()):
        if len(state.returns) >= most:
            return
        gone = not member.connected
        if silent or (gone and _unattended(worker, member, now)):
            worker.taken_back += member.leased
            suspicion.worker_lost(state, member, now)
        elif gone and _disowned(state, worker, member, now):
            suspicion.consumer_lost(state, member, now)
        else:
            continue
        if gone:
            state.dismiss(member)
    supervisor = worker.supervisor
    if supervisor is not None and not worker.present:
        gone_at = max([supervisor.gone_at, *(member.gone_at for member in worker.consumers.values())])
        if now >= gone_at + RECONNECT_GRACE:
            state.dismiss(supervisor)
    if worker.name not in state.workers:
        state.notices.append(worker.notice("lost"))
    elif silent and not worker.reported_silent:
        worker.reported_silent = True
        state.notices.append(worker.notice("silent"))


def _sweep(state: QueueState, now: float) -> None:
    """Give back the jobs of holders that no other rule reaches any more."""
    for holder in [holder for holder in state.holders if not _ends_otherwise(state, holder)]:
        if holder.worker is not None:
            suspicion.worker_lost(state, holder, now)
        else:
            give_back_all(state, holder, now, expired=True)


def _ends_otherwise(state: QueueState, holder: Member) -> bool:
    """Return whether a rule beside the sweep ends the leases of *holder* some day."""
    if holder.role == "plain":
        return holder.connected
    if holder.role == ON_TRIAL:
        return True
    worker = holder.worker
    return (
        worker is not None
        and state.workers.get(worker.name) is worker
        and worker.consumers.get(holder.name) is holder
    )


def _disowned(state: QueueState, worker: Worker, member: Member, now: float) -> bool:
    """Return whether a consumer is gone for a lease time, and has no lease or is not its supervisor's."""
    if now < member.gone_at + state.limits.lease_seconds:
        return False
    return not member.leases or worker.lacks(member.name)


def _unattended(worker: Worker, member: Member, now: float) -> bool:
    """Return whether neither the consumer nor its supervisor has been connected for the grace time."""
    if worker.supervised:
        return False
    gone_at = member.gone_at
    if worker.supervisor is not None:
        gone_at = max(gone_at, worker.supervisor.gone_at)
    return now >= gone_at + RECONNECT_GRACE


def _retire(state: QueueState, now: float) -> None:
    """Forget chunks past their retention, oldest first."""
    ledger = state.ledger
    keep_known(state, list(_retired(state, now)), now)
    while ledger.emptied and now >= ledger.emptied[0][0] + ORIGIN_KEPT_SECONDS:
        _, name = ledger.emptied.popleft()
        _forget_origin(state, name, now)
    if ledger.has_stale_outcomes:
        _sweep_outcomes(ledger)


def keep_known(state: QueueState, forgotten: Sequence[Chunk], now: float) -> None:
    """Record that the jobs of chunks that are forgotten were accepted once; drop queues without jobs."""
    for name in dict.fromkeys(chunk.origin for chunk in forgotten):
        _keep_known(state, name, now)
    ledger = state.ledger
    for queue in {chunk.terms.queue for chunk in forgotten}:
        if ledger.counts[queue].idle:
            ledger.forgotten += ledger.roster.drop(queue)
            if queue not in PERMANENT_QUEUES:
                del ledger.counts[queue]


def _sweep_outcomes(ledger: Ledger) -> None:
    """Look at the next outcomes in their order, and remove the forgotten ones."""
    order, references, start = ledger.outcome_order, ledger.references, ledger.swept
    kept = [each for each in order[start : start + SWEPT_OUTCOMES] if each in references]
    order[start : start + SWEPT_OUTCOMES] = kept
    ledger.swept = start + len(kept) if start + len(kept) < len(order) else 0


def _retired(state: QueueState, now: float) -> Iterator[Chunk]:
    """Forget some chunks and yield them; chunks with dead jobs are kept longer."""
    ledger, limits = state.ledger, state.limits
    budget = FORGET_CHUNKS_MAX
    while ledger.finished and budget > 0:
        finished_at, chunk = ledger.finished[0]
        if now < finished_at + limits.retention_seconds and ledger.finished_jobs <= limits.retention_jobs:
            break
        ledger.finished.popleft()
        budget -= _cost(chunk)
        if _still(state, finished_at, chunk):
            if any((chunk.sequence, index) in ledger.dead for index in chunk.records):
                ledger.keep_dead(finished_at, chunk)
            else:
                ledger.forget(chunk)
                yield chunk
    while ledger.kept_dead and budget > 0:
        finished_at, chunk = ledger.kept_dead[0]
        expired = now >= finished_at + limits.dead_retention_seconds
        if not expired and ledger.kept_dead_jobs <= limits.retention_jobs:
            break
        ledger.kept_dead.popleft()
        budget -= _cost(chunk)
        if _still(state, finished_at, chunk):
            ledger.forget(chunk)
            yield chunk


def _cost(chunk: Chunk) -> int:
    """Return how many small chunks take as long to forget as *chunk*."""
    return 1 + (chunk.count + RECORD_COST_JOBS * len(chunk.records)) // SMALL_CHUNK_JOBS


def _merge(state: QueueState, now: float) -> None:
    """Merge the jobs of grown chunks that have waited for a while: one row for each chunk.

    So a replay reads a long backlog of such jobs as fast as one that came in bulk.
    """
    grown, budget = state.ledger.grown, MERGE_CHUNKS_MAX
    while grown and budget and now >= grown[0].at_of(0) + state.limits.merge_seconds:
        chunk = grown.popleft()
        if chunk.mergeable and state.ledger.chunks.get(chunk.sequence) is chunk:
            merge(state.ledger, state.record(_merged(state, chunk, now)), chunk)
            budget -= 1


def _merged(state: QueueState, chunk: Chunk, now: float) -> e.Merged:
    indexes, columns = range(chunk.count), chunk.columns
    return e.Merged(
        now,
        chunk.origin,
        chunk.first,
        chunk.terms,
        state.bodies(chunk, 0, chunk.count),
        [chunk.sequence_of(index) for index in indexes],
        [chunk.at_of(index) for index in indexes],
        list(columns.dues) if columns is not None else [],
        list(columns.keys) if columns is not None else [],
        state.headers(chunk, 0, chunk.count),
    )


def _still(state: QueueState, finished_at: float, chunk: Chunk) -> bool:
    """Return whether a chunk has been neither reopened nor forgotten since it finished at that time."""
    return (
        not chunk.unfinished
        and chunk.finished_at == finished_at
        and state.ledger.chunks.get(chunk.sequence) is chunk
    )


def _keep_known(state: QueueState, name: str, now: float) -> None:
    """Record which numbers of an origin were accepted once, now that chunks are forgotten."""
    ledger = state.ledger
    origin = ledger.origins.make(name)
    ledger.forgotten.extend(origin.forgotten_by)
    origin.forgotten_by = [state.record(e.Forgotten(now, name, 0, origin.forgotten, origin.floor))]
    if not origin.chunks:
        note_emptied(ledger, origin, now)


def _forget_origin(state: QueueState, name: str, now: float) -> None:
    """Forget an origin that has had no jobs for long; if it has had some since, it waits again."""
    ledger = state.ledger
    origin = ledger.origins.get(name)
    if origin is None or origin.emptied_at is None:
        return
    emptied_at, origin.emptied_at = origin.emptied_at, None
    if origin.chunks:
        return
    if now < emptied_at + ORIGIN_KEPT_SECONDS:
        note_emptied(ledger, origin, emptied_at)
        return
    ledger.forgotten.extend(origin.forgotten_by)
    ledger.origins.discard(name)
