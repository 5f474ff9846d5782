"""Members that come and go: hello, leave, and connections that end."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from svc.domain import commands as c
from svc.domain import enrolment, stops, suspicion
from svc.domain import replies as r
from svc.domain.chunk import Chunk
from svc.domain.field_bounds import CHECKPOINT_DATA_MAX
from svc.domain.handlers import handles
from svc.domain.lifecycle import JobState
from svc.domain.limits import GRANT_JOBS
from svc.domain.members import LeaseRecord, Member, Notice, Worker, subscription_of
from svc.domain.names import are_printable, is_address
from svc.domain.queue_state import QueueState
from svc.domain.scheduling.lanes import covers
from svc.domain.settlement import give_back_all

#: The roles that a connection may claim.
ROLES = ("client", "consumer", "worker")
#: Jobs of the leases that one hello may claim: those of the last three grants, and many more.
CLAIMED_JOBS_MAX = 16 * GRANT_JOBS


@handles(c.Hello)
def hello(state: QueueState, command: c.Hello, member: Member, now: float) -> r.Reply:
    """Give *member* the role and names in the command; a consumer that reconnects gets its leases back."""
    if command.version != c.PROTOCOL_VERSION:
        return r.Refused(
            "protocol",
            f"this manager speaks version {c.PROTOCOL_VERSION}, the client {command.version}; "
            "upgrade the older",
        )
    unfit = _unfit(command)
    if unfit:
        return r.Refused("bad_request", unfit)
    if member.worker is not None and not _same_again(command, member, member.worker):
        return r.Refused("bad_request", "this connection has said hello as another member; open a new one")
    if _overtaken(state, command, member):
        message = f"{command.name!r} has ended, or come back on a newer connection than this one"
        return r.Refused("conflict", message)
    kind, kinds = subscription_of(command), state.ledger.roster.kinds
    if not kinds.has_room(kind, enrolment.kinds_in_use(state)):
        return r.Refused("conflict", "the connected consumers name too many queues and tasks already")
    member.role, member.name, member.life = command.role, command.name, command.life
    member.code = command.code
    member.subscription = state.lanes.shared(kinds.shared(kind))
    state.consumers_changed()
    if member.role in ("consumer", "worker"):
        _enrol(state, command, member, now)
    lost = _restore_all(state, command.held, member, now)
    if member.stops:
        stops.bound(state, member)
    _give_back_unheld(state, command, member, now)
    if member.worker is not None and state.absentees:
        enrolment.look_for(state, member.worker)
    limits = state.limits
    return r.Welcome(
        c.PROTOCOL_VERSION,
        state.incarnation,
        "",
        limits.lease_seconds,
        limits.max_job_bytes,
        lost,
        CHECKPOINT_DATA_MAX,
        min(limits.stream_value_bytes, limits.max_job_bytes),
        limits.stream_values,
        limits.stream_bytes,
        limits.max_value_bytes,
        limits.piece_bytes,
    )


@handles(c.Leave)
def leave(state: QueueState, command: c.Leave, member: Member, now: float) -> r.Reply:
    """End a membership in order."""
    suspicion.reclaim(state, member)
    count = give_back_all(state, member, now)
    worker = member.worker
    if worker is not None and member.role == "consumer":
        state.ended(worker, member.name)
    elif worker is not None:
        enrolment.said_goodbye(state, worker)
    state.dismiss(member)
    if worker is not None and worker.name not in state.workers:
        state.notices.append(worker.notice("left"))
    return r.Done(count)


def disconnected(state: QueueState, member: Member, now: float) -> None:
    """Note that a member's connection has ended without a `leave`.

    The jobs of a plain client go back at once. The jobs of a consumer stay while its supervisor is
    connected: it either sees the consumer return or reports it lost. Without a supervisor, `upkeep.tick`
    gives them back soon.
    """
    member.connected = False
    member.gone_at = now
    state.sweep_due = True
    state.consumers_changed()
    if member.role == "plain" or (member.worker is None and member.leases):
        give_back_all(state, member, now, expired=True)


def heard_from(state: QueueState, worker: Worker, now: float) -> None:
    """Renew the leases of *worker*; its requests for jobs that came while it was silent are asked again."""
    state.readied = state.readied or worker.is_silent(now)
    worker.heard(now, state.limits.lease_seconds)


def claim(state: QueueState, worker: Worker, claims: Iterable[c.ClaimedJob], now: float) -> None:
    """Restore the leases of consumers that have not come back after a restart, as their supervisor sees them.

    Such a consumer counts as one whose connection has ended. One that has said hello or has ended is left
    alone: it has spoken for itself. Jobs of which the supervisor cannot know still wait for its hello.
    """
    supervisor = worker.supervisor
    if supervisor is None:
        return
    expected = frozenset(worker.report.consumers or ()) - worker.consumers.keys() - worker.ended.keys()
    for each in claims:
        name = each.consumer
        if name not in expected or name in worker.consumers:
            continue
        absent = Member("consumer", name)
        absent.worker, absent.life, absent.subscription = worker, worker.life, supervisor.subscription
        absent.claimed = True
        worker.consumers[name] = absent
        disconnected(state, absent, now)
        _restore(state, c.Held(each.token, each.origin, each.number, 1), absent, now)
    state.count_consumers()


def _unfit(command: c.Hello) -> str:
    """Return the reason why no member may introduce itself like that, or ""."""
    if command.role not in ROLES:
        return f"{command.role!r} is not a role; roles are {', '.join(ROLES)}"
    if not are_printable((command.name, command.worker, command.host, command.release)):
        return "the names of members, hosts and releases have printable characters"
    if command.http and not is_address(command.http):
        return f"{command.http!r} is not an address; write HOST:PORT"
    if command.role == "client":
        works = command.worker or command.tasks or command.queues or command.held or command.accept
        return "only a consumer or a supervisor has a worker, tasks, queues, codecs or jobs" if works else ""
    if not command.name:
        return "a consumer and a supervisor have names"
    if command.held and command.role != "consumer":
        return "only a consumer holds jobs"
    names = (*command.tasks, *command.queues, *(command.accept or ()))
    if not are_printable(names) or any(name.startswith("#") for name in names):
        return "queues, tasks and codecs have printable names; those that begin with # are the manager's own"
    return ""


def _same_again(command: c.Hello, member: Member, worker: Worker) -> bool:
    return (command.role, command.name) == (member.role, member.name) and (
        command.worker or command.name
    ) == worker.name


def _overtaken(state: QueueState, command: c.Hello, member: Member) -> bool:
    """Return whether the sender of a hello has ended since, or said hello on a newer connection.

    A client opens a new connection only after it has given up the last one, so messages that still arrive
    over the old one are out of date.
    """
    worker = state.workers.get(command.worker or command.name)
    if worker is None or command.role == "client":
        return False
    if command.role == "consumer" and 0 < member.order <= worker.ended.get(command.name, 0):
        return True
    now_there = worker.supervisor if command.role == "worker" else worker.consumers.get(command.name)
    return now_there is not None and now_there.order > member.order


def _enrol(state: QueueState, command: c.Hello, member: Member, now: float) -> None:
    name = command.worker or command.name
    worker = state.workers.get(name)
    doubled = worker is not None and worker.is_doubled(command, now)
    if worker is not None and doubled and not worker.reported_doubled:
        worker.reported_doubled = True
        hosts = [worker.hello.host if worker.hello is not None else "", command.host]
        state.notices.append(Notice("doubled", name, host=", ".join(hosts)))
    if worker is not None and command.life != worker.life:
        suspicion.process_replaced(state, worker, now)
        worker = state.workers.get(name)
    if worker is None:
        worker = state.workers[name] = Worker(name, connected_at=now)
    if doubled:
        worker.doubled_at = now
    worker.life = command.life
    heard_from(state, worker, now)
    member.worker = worker
    if member.role == "worker":
        if worker.supervisor is None:
            state.notices.append(Notice("joined", name))
        elif worker.supervisor is not member:
            # Messages that still arrive over its connection are out of date, and must not change the worker.
            worker.supervisor.worker, worker.supervisor.displaced = None, worker
        worker.supervisor = member
        worker.hello = msgspec.structs.replace(command, tasks=[], queues=[], accept=None)  # consumers tell
        return
    previous = worker.consumers.get(member.name)
    if previous is not None and previous is not member:
        _take_over(state, previous, member, now)
    worker.consumers[member.name] = member
    member.connected = True
    enrolment.enrol(state, member, now)
    state.count_consumers()


def _take_over(state: QueueState, previous: Member, member: Member, now: float) -> None:
    """Move the leases of a consumer's old connection to its new one, unless that was another process's."""
    if previous.life != member.life:
        suspicion.worker_lost(state, previous, now)
    for lease in list(previous.leases.values()):
        state.pass_on(lease, member)
    member.stops, previous.stops = previous.stops, []
    previous.worker = None
    state.sweep_due = True


def _restore_all(state: QueueState, claims: Iterable[c.Held], member: Member, now: float) -> list[int]:
    """Restore the leases that *member* claims, and return the tokens of those that it does not get.

    Those behind many jobs are lost, too: it held no more of them, and to look at each may take long.
    """
    lost, jobs = [], 0
    for held in claims:
        jobs += held.count
        if jobs > CLAIMED_JOBS_MAX or not _restore(state, held, member, now):
            lost.append(held.token)
    return lost


def _restore(state: QueueState, held: c.Held, member: Member, now: float) -> bool:
    """Return whether *member* has the lease that it claims; after a restart, grant it anew."""
    lease = state.leases.get(held.token)
    if lease is not None:
        if suspicion.on_trial(lease, member):
            state.pass_on(lease, member)
        return lease.holder is member
    suspicion.came_back(state, held.token, member, now)
    place = state.ledger.origins.find(held.origin, held.first)
    if place is None or held.count < 1 or not 0 < held.token <= state.incarnation << 40:
        return False
    chunk, start = place
    if not covers(member.subscription, chunk.terms):
        return False
    stop = stops.after_restart(state, chunk, start, start + held.count, held.token, member)
    while start < min(stop, chunk.count) and _settled(state, held.token, chunk, start):
        # The reply that said so never arrived.
        start += 1
    stop = _surpassed(chunk, start, stop, held.token)
    if not start < stop <= chunk.count or chunk.count_in(JobState.READY, start, stop) != stop - start:
        return False
    state.skip_ready(chunk, start, stop)
    lease = state.grant_lease(chunk, start, stop, member, now, token=held.token)
    if state.ledger.losses.of(chunk, start) is not None:
        state.suspects.running.append(lease)
        state.upkeep_at = 0.0
    return True


def _surpassed(chunk: Chunk, start: int, stop: int, token: int) -> int:
    """Return the first of jobs [start, stop) whose partial results are those of a later attempt, or *stop*.

    The lease under *token* was lost before an earlier restart. A success under it would empty that stream.
    """
    for index in range(start, min(stop, chunk.count)) if chunk.records else ():
        record = chunk.records.get(index)
        if record is not None and record.stream is not None and record.stream.token > token:
            return index
    return stop


def _give_back_unheld(state: QueueState, command: c.Hello, member: Member, now: float) -> None:
    """Give back the leases that *member* does not know of: the replies with these grants never arrived."""
    held = {each.token for each in command.held}

    def give_back(lease: LeaseRecord, place: int, now: float) -> None:
        state.give_back(lease, lease.start, lease.stop, now)
        state.end_lease(lease)

    unheld = [lease for token, lease in member.leases.items() if token not in held]
    state.returns.add(state, member, now, give_back, unheld)


def _settled(state: QueueState, token: int, chunk: Chunk, index: int) -> bool:
    """Return whether the outcome of the attempt under *token* at a job is recorded."""
    number = chunk.first + index
    return chunk.has_ended(index) or state.ledger.settled.has(token, number, 1, failed=True)
