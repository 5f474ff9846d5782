"""What the passing of time does: due jobs, leases whose holder is gone, and jobs kept long enough."""

from __future__ import annotations

from collections.abc import Iterator

from service.domain import events as e
from service.domain import suspicion
from service.domain.batch import Batch
from service.domain.members import RECONNECT_GRACE, Member, Worker
from service.domain.queue_state import Notice, QueueState
from service.domain.settlement import give_back_all

#: Batches that one tick forgets at most, so that retention never stalls the loop.
FORGET_BATCHES_MAX = 200
#: Jobs of a batch that is forgotten in about the time that a batch of one takes, and by how many more of them
#: a job with a history counts.
SMALL_BATCH_JOBS = 250
RECORD_COST_JOBS = 20
#: Seconds between two looks for leases whose holder nobody attends to.
SWEEP_SECONDS = 1.0
#: Outcomes that one tick looks at for those that are forgotten: it takes some milliseconds.
SWEPT_OUTCOMES = 20_000
#: Batches that one tick merges at most: where their bodies have to be read for it, each takes some 3 ms.
MERGE_BATCHES_MAX = 4
#: Seconds for which an origin, all of whose jobs are forgotten, is still known.
ORIGIN_KEPT_SECONDS = 24 * 3600.0


def tick(state: QueueState, now: float) -> None:
    """Do what is due.

    A worker is heard of by its supervisor's `extend`. When it is not for a lease time, or when neither it nor
    its consumer has been connected for half a second, the consumer's jobs go back. Counted on the manager's
    own clock, which never runs backwards and does not follow changes of the host's time of day.
    """
    state.wake_due(now)
    if state.hold_until and now >= state.hold_until:
        state.hold_until = 0.0
        state.readied = True
    suspicion.judge(state, now)
    for worker in list(state.workers.values()):
        _reap(state, worker, now)
    if now >= state.next_sweep:
        state.next_sweep = now + SWEEP_SECONDS
        _sweep(state, now)
    _retire(state, now)
    _merge(state, now)


def pause(state: QueueState, seconds: float, now: float) -> None:
    """Do not count the last *seconds* in judging leases: the manager could not hear anybody in them.

    Whoever was heard of before that gets the rest of the lease time, or of the grace, from now on. So do
    those that are expected to come back after a restart.
    """
    if state.hold_until:
        state.hold_until = min(state.hold_until + seconds, now + state.limits.reconnect_seconds)
    for worker in state.workers.values():
        worker.expires = min(worker.expires + seconds, now + state.limits.lease_seconds)
        supervisor = [worker.supervisor] if worker.supervisor is not None else []
        for member in (*supervisor, *worker.consumers.values()):
            member.gone_at = min(member.gone_at + seconds, now)


def _reap(state: QueueState, worker: Worker, now: float) -> None:
    """Give back the jobs of a worker's consumers that are gone."""
    expired = now >= worker.expires
    for member in list(worker.consumers.values()):
        gone = not member.connected
        if expired or (gone and _unattended(worker, member, now)):
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
        state.notices.append(Notice("lost", worker.name))


def _sweep(state: QueueState, now: float) -> None:
    """Give back what is held by members that no other rule reaches any more."""
    for holder in [holder for holder in state.holders if not state.attends(holder)]:
        if holder.worker is not None:
            suspicion.worker_lost(state, holder, now)
        else:
            give_back_all(state, holder, now, expired=True)


def _disowned(state: QueueState, worker: Worker, member: Member, now: float) -> bool:
    """Return whether a consumer that is gone for a lease time holds nothing, or is not its supervisor's."""
    if now < member.gone_at + state.limits.lease_seconds:
        return False
    return not member.leases or worker.lacks(member.name)


def _unattended(worker: Worker, member: Member, now: float) -> bool:
    """Return whether neither the consumer nor its supervisor has been connected for the grace."""
    if worker.supervised:
        return False
    gone_at = member.gone_at
    if worker.supervisor is not None:
        gone_at = max(gone_at, worker.supervisor.gone_at)
    return now >= gone_at + RECONNECT_GRACE


def _retire(state: QueueState, now: float) -> None:
    """Forget what is past its retention, oldest first."""
    ledger = state.ledger
    forgotten = list(_retired(state, now))
    for name in dict.fromkeys(batch.origin for batch in forgotten):
        _keep_known(state, name, now)
    for queue in {batch.terms.queue for batch in forgotten}:
        ledger.drop_idle(queue)
    while ledger.emptied and now >= ledger.emptied[0][0] + ORIGIN_KEPT_SECONDS:
        _, name = ledger.emptied.popleft()
        _forget_origin(state, name, now)
    if len(ledger.outcome_order) > 2 * len(ledger.references) + 1000:
        ledger.sweep_outcomes(SWEPT_OUTCOMES)


def _retired(state: QueueState, now: float) -> Iterator[Batch]:
    """Forget some batches, and yield them; those with dead jobs are kept longer."""
    ledger, limits = state.ledger, state.limits
    budget = FORGET_BATCHES_MAX
    while ledger.finished and budget > 0:
        finished_at, batch = ledger.finished[0]
        if now < finished_at + limits.retention_seconds and ledger.finished_jobs <= limits.retention_jobs:
            break
        ledger.finished.popleft()
        ledger.finished_jobs -= batch.count
        budget -= _cost(batch)
        if _still(state, finished_at, batch):
            if any((batch.sequence, index) in ledger.dead for index in batch.records):
                ledger.kept_dead.append((finished_at, batch))
                ledger.kept_dead_jobs += batch.count
            else:
                ledger.forget(batch)
                yield batch
    while ledger.kept_dead and budget > 0:
        finished_at, batch = ledger.kept_dead[0]
        expired = now >= finished_at + limits.dead_retention_seconds
        if not expired and ledger.kept_dead_jobs <= limits.retention_jobs:
            break
        ledger.kept_dead.popleft()
        ledger.kept_dead_jobs -= batch.count
        budget -= _cost(batch)
        if _still(state, finished_at, batch):
            ledger.forget(batch)
            yield batch


def _cost(batch: Batch) -> int:
    """Return how many small batches take as long to forget as *batch* does."""
    return 1 + (batch.count + RECORD_COST_JOBS * len(batch.records)) // SMALL_BATCH_JOBS


def _merge(state: QueueState, now: float) -> None:
    """Put jobs that came one by one and have waited for a while into one row for each batch.

    So a long backlog of such jobs is read again in no more time than one that came in bulk.
    """
    grown, budget = state.ledger.grown, MERGE_BATCHES_MAX
    while grown and budget and now >= grown[0].at + state.limits.merge_seconds:
        batch = grown.popleft()
        if batch.mergeable and state.ledger.batches.get(batch.sequence) is batch:
            bodies = state.bodies(batch, 0, batch.count)
            by, at = list(batch.accepted_by or ()), list(batch.accepted_at or ())
            dues, keys = list(batch.dues or ()), list(batch.keys or ())
            event = e.Merged(now, batch.origin, batch.first, batch.terms, bodies, by, at, dues, keys)
            state.ledger.merge(state.record(event), batch)
            budget -= 1


def _still(state: QueueState, finished_at: float, batch: Batch) -> bool:
    """Return whether a batch has not been reopened or forgotten since it finished at that time."""
    return (
        not batch.unfinished
        and batch.finished_at == finished_at
        and state.ledger.batches.get(batch.sequence) is batch
    )


def _keep_known(state: QueueState, name: str, now: float) -> None:
    """Keep on record which numbers of an origin were accepted once, now that batches are forgotten."""
    ledger = state.ledger
    origin = ledger.origins.make(name)
    ledger.forgotten.extend(origin.forgotten_by)
    origin.forgotten_by = [state.record(e.Forgotten(now, name, 0, origin.forgotten, origin.floor))]
    if not origin.batches:
        ledger.note_emptied(origin, now)


def _forget_origin(state: QueueState, name: str, now: float) -> None:
    """Forget an origin that has had no jobs for long; one that has had some since waits anew."""
    ledger = state.ledger
    origin = ledger.origins.get(name)
    if origin is None or origin.emptied_at is None:
        return
    emptied_at, origin.emptied_at = origin.emptied_at, None
    if origin.batches:
        return
    if now < emptied_at + ORIGIN_KEPT_SECONDS:
        ledger.note_emptied(origin, emptied_at)
        return
    ledger.forgotten.extend(origin.forgotten_by)
    ledger.origins.discard(name)
