"""Jobs that take their workers down: which are suspects, when one may run, and when it gets a suspicion.

The manager cannot see which job of a lost worker was to blame. So all jobs that it held are *suspects* from
then on, until they end: each is handed out alone, at the back of its lane. The suspects of one queue run on
one worker at a time. A suspect that has lost a second worker runs alone: no other suspect of its queue runs
meanwhile, so that it is clear which of them was to blame; and no other of that kind runs in any queue, so
that two of them do not end two workers at once.

A suspect that loses its worker gets a *suspicion*. With `Limits.suspicion_budget` of them it is dead.
Planned stops charge nobody. Nor do workers that were lost together, as those of one rack are. So the
charge waits for a moment, in which the lease stays in force: if the same process comes back, it goes on.
If it comes back later, the suspicion is withdrawn.
"""

from __future__ import annotations

from bisect import bisect_right
from operator import attrgetter

from svc.domain import events as e
from svc.domain import replay
from svc.domain.charges import Usage, charge, return_jobs
from svc.domain.due import runs_of
from svc.domain.job import Cause, ErrorInfo
from svc.domain.job_records import NO_RECORD
from svc.domain.lifecycle import JobState
from svc.domain.losses import Loss
from svc.domain.members import ON_TRIAL, LeaseRecord, Member, Worker
from svc.domain.queue_state import QueueState
from svc.domain.scheduling.suspects import Trial

#: Workers that are lost within so many seconds of each other are lost together.
TOGETHER_SECONDS = 1.0
#: Trials that one look concludes at most, which takes some 10 ms.
JUDGED_MAX = 256


# --- a worker or a consumer is lost -------------------------------------------------------------------


def worker_lost(state: QueueState, holder: Member, now: float) -> None:
    """Give back what *holder* has, a consumer whose worker has gone or was not heard of for too long."""
    worker = holder.worker
    if worker is None:
        _give_back(state, holder, now, planned=True)
        return
    # Its consumers are missed one after the other; the first of them tells when it was lost.
    state.suspects.lost_at.setdefault((worker.name, holder.life), now)
    _give_back(state, holder, now, planned=worker.report.stopping, worker=worker)


def process_replaced(state: QueueState, worker: Worker, now: float) -> None:
    """Give back what the consumers of a worker had that are not connected: another process has its name."""
    for member in [each for each in worker.consumers.values() if not each.connected]:
        worker_lost(state, member, now)
        state.dismiss(member)


def consumer_lost(state: QueueState, holder: Member, now: float) -> None:
    """Give back what a consumer has whose process has died, with its supervisor there to tell of it."""

    def give_back(lease: LeaseRecord, place: int, now: float) -> None:
        seconds = run_time(lease, now, told=True)
        if _is_alone(state, lease):
            accuse(state, lease, seconds, now)
        else:
            _suspect(state, lease, now)
            return_jobs(state, lease, None if place else seconds, now)

    state.returns.add(state, holder, now, give_back)


def accuse(state: QueueState, lease: LeaseRecord, seconds: float, now: float) -> None:
    """Charge a suspicion to the first job of *lease*, which was running; the others are not touched."""
    chunk, index, budget = lease.chunk, lease.start, state.limits.suspicion_budget
    count = 1 + chunk.records.get(index, NO_RECORD).suspicions
    _suspect(state, lease, now, count=1, charged=True)
    said = f"its worker, or all its processes, was lost while this job ran: suspicion {count}"
    error = ErrorInfo("WorkerLost", f"{said} of {budget}" if budget else said)
    retry_in = None if budget and count >= budget else 0.0
    charge(state, lease, Cause.SUSPECTED, error, retry_in, Usage(seconds), now)


def run_time(lease: LeaseRecord, now: float, *, told: bool = False) -> float:
    """Return for how many seconds the first job of a lost lease ran, as far as can be told from outside.

    Its supervisor may have *told* of the loss just now. Else a connected holder ran it until its worker was
    last heard of at least, which may be 0 seconds.
    """
    holder = lease.holder
    seen = holder.worker.seen_at if holder.worker is not None and not told else now
    last = holder.gone_at if not holder.connected else max(seen, lease.since)
    return max(0.0, min(last, now) - lease.since)


def _give_back(
    state: QueueState, holder: Member, now: float, *, planned: bool, worker: Worker | None = None
) -> None:
    def give_back(lease: LeaseRecord, place: int, now: float) -> None:
        seconds = run_time(lease, now)
        if worker is not None and not planned and _is_alone(state, lease):
            _put_on_trial(state, lease, worker, seconds, now)
            return
        if not planned:
            _suspect(state, lease, now)
        # A consumer runs its jobs in order: only the very first one was executing.
        return_jobs(state, lease, None if place else seconds, now)

    state.returns.add(state, holder, now, give_back)


def _is_alone(state: QueueState, lease: LeaseRecord) -> bool:
    """Return whether a lease is that of a suspect, which was handed out alone."""
    return lease.stop - lease.start == 1 and state.ledger.losses.of(lease.chunk, lease.start) is not None


def _suspect(
    state: QueueState, lease: LeaseRecord, now: float, *, count: int = 0, charged: bool = False
) -> None:
    """Make suspects of the first *count* jobs of *lease*, or of all."""
    chunk, index = lease.chunk, lease.start
    count = count or lease.stop - lease.start
    again = count == 1 and state.ledger.losses.of(chunk, index) is not None
    first = chunk.first + index
    event = e.Suspected(now, chunk.origin, first, count, lease.token, again=again, charged=charged)
    replay.suspected(state.ledger, state.record(event), event)


# --- the charge -------------------------------------------------------------------------------------


def _put_on_trial(state: QueueState, lease: LeaseRecord, worker: Worker, seconds: float, now: float) -> None:
    holder = lease.holder
    absent = Member(ON_TRIAL, holder.name)
    absent.code = holder.code
    # The worker as it was: another process that takes its name is not the one that had the lease.
    absent.worker, absent.life = Worker(worker.name), holder.life
    absent.connected = False
    state.pass_on(lease, absent)
    state.upkeep_at = 0.0
    state.suspects.trials.append(Trial(now, (worker.name, holder.life), lease, seconds))


def on_trial(lease: LeaseRecord, member: Member) -> bool:
    """Return whether *lease* is on trial and *member* is the process that had it."""
    holder = lease.holder
    was, worker = holder.worker, member.worker
    if holder.role != ON_TRIAL or was is None or worker is None:
        return False
    return (holder.name, was.name, holder.life) == (member.name, worker.name, member.life)


def reclaim(state: QueueState, member: Member) -> None:
    """Give a consumer that is there what is on trial of it: it was out of sight for a while."""
    for trial in state.suspects.trials:
        if state.leases.get(trial.lease.token) is trial.lease and on_trial(trial.lease, member):
            state.pass_on(trial.lease, member)


def reclaimed(state: QueueState, token: int, member: Member) -> LeaseRecord | None:
    """Return the lease under *token* if it is on trial of *member*: it is the member's own again."""
    lease = state.leases.get(token)
    if lease is None or not on_trial(lease, member):
        return None
    state.pass_on(lease, member)
    return lease


def judge(state: QueueState, now: float) -> None:
    """Conclude the trials that have taken long enough; if they are very many, the next call does the rest."""
    suspects = state.suspects
    state.readied = suspects.forget_ended() or state.readied
    due = bisect_right(suspects.trials, now - TOGETHER_SECONDS, key=attrgetter("at"))
    concluded = suspects.trials[: min(due, JUDGED_MAX)]
    del suspects.trials[: len(concluded)]
    for trial in concluded:
        lease = trial.lease
        if state.leases.get(lease.token) is lease and lease.holder.role == ON_TRIAL:
            _conclude(state, trial, now)
    oldest = now - 2 * TOGETHER_SECONDS
    if suspects.trials:
        oldest = min(oldest, suspects.trials[0].at - TOGETHER_SECONDS)
    if suspects.lost_at and min(suspects.lost_at.values()) < oldest:
        suspects.lost_at = {name: at for name, at in suspects.lost_at.items() if at >= oldest}


def _conclude(state: QueueState, trial: Trial, now: float) -> None:
    lease = trial.lease
    if _lost_with_others(state, trial):
        _suspect(state, lease, now)
        return_jobs(state, lease, trial.seconds, now)
    else:
        accuse(state, lease, trial.seconds, now)


def _lost_with_others(state: QueueState, trial: Trial) -> bool:
    """Return whether another worker was lost together with that of *trial*.

    One that was lost before the suspect was handed out does not count: the suspect may have been its end too.
    """
    granted, at = trial.lease.granted_at, trial.at
    lost = state.suspects.lost_at.items()
    return any(
        worker != trial.worker and other > granted and abs(other - at) <= TOGETHER_SECONDS
        for worker, other in lost
    )


def came_back(state: QueueState, token: int, member: Member, now: float) -> None:
    """Withdraw what the loss of a lease has done: the process that had it speaks, as *member*."""
    loss = state.ledger.losses.of_lease(token)
    if loss is None or member.worker is None:
        return
    chunk = loss.chunk
    waiting = [index for index in loss.jobs() if chunk.state(index) is JobState.READY]
    if loss.again:
        waiting = []  # it stays a suspect
    for start, stop in runs_of(waiting):
        state.skip_ready(chunk, start, stop)
    _withdraw(state, loss, now)
    for start, stop in runs_of(waiting):
        state.make_ready(chunk, start, stop, now)


def _withdraw(state: QueueState, loss: Loss, now: float) -> None:
    chunk, left = loss.chunk, None
    if loss.charged:
        record = chunk.record(loss.start)
        left = max(0, record.suspicions - 1)
    elif loss.again:
        return
    event = e.Cleared(now, chunk.origin, chunk.first + loss.start, loss.token, left)
    replay.cleared(state.ledger, state.record(event), event)
