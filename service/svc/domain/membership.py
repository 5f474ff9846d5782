"""Members that come and go: hello, leave, and connections that end."""

from __future__ import annotations

from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain import suspicion
from svc.domain.chunk import Chunk
from svc.domain.handlers import handles
from svc.domain.lifecycle import JobState
from svc.domain.members import Member, Worker, subscription_of
from svc.domain.names import are_printable, is_address
from svc.domain.queue_state import Notice, QueueState
from svc.domain.scheduling.lanes import covers
from svc.domain.settlement import give_back_all

#: The roles that a connection may claim.
ROLES = ("client", "consumer", "worker")


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
    member.role, member.name, member.life = command.role, command.name, command.life
    member.subscription = state.lanes.shared(subscription_of(command))
    state.consumers_changed()
    if member.role in ("consumer", "worker"):
        _enrol(state, command, member, now)
    lost = [held.token for held in command.held if not _restore(state, held, member, now)]
    for token in set(member.leases) - {held.token for held in command.held}:
        # The grant was made, but its reply never arrived.
        lease = member.leases[token]
        state.give_back(lease, lease.start, lease.stop, now)
        state.end_lease(lease)
    limits = state.limits
    return r.Welcome(
        c.PROTOCOL_VERSION, state.incarnation, "", limits.lease_seconds, limits.max_job_bytes, lost
    )


@handles(c.Leave)
def leave(state: QueueState, command: c.Leave, member: Member, now: float) -> r.Reply:
    """End a membership in order."""
    suspicion.reclaim(state, member)
    count = give_back_all(state, member, now)
    worker = member.worker
    if worker is not None and member.role == "consumer":
        state.ended(worker, member.name)
    state.dismiss(member)
    if worker is not None and worker.name not in state.workers:
        state.notices.append(Notice("left", worker.name))
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
    if worker is not None and command.life != worker.life:
        suspicion.process_replaced(state, worker, now)
        worker = state.workers.get(name)
    if worker is None:
        worker = state.workers[name] = Worker(name, connected_at=now)
    worker.life = command.life
    worker.seen_at = now
    worker.expires = now + state.limits.lease_seconds
    member.worker = worker
    if member.role == "worker":
        if worker.supervisor is None:
            state.notices.append(Notice("joined", name))
        elif worker.supervisor is not member:
            # Messages that still arrive over its connection are out of date, and must not change the worker.
            worker.supervisor.worker = None
        worker.supervisor = member
        worker.hello = command
        return
    previous = worker.consumers.get(member.name)
    if previous is not None and previous is not member:
        _take_over(state, previous, member, now)
    worker.consumers[member.name] = member
    member.connected = True
    state.count_consumers()


def _take_over(state: QueueState, previous: Member, member: Member, now: float) -> None:
    """Move the leases of a consumer's old connection to its new one, unless that was another process's."""
    if previous.life != member.life:
        suspicion.worker_lost(state, previous, now)
    for lease in list(previous.leases.values()):
        state.pass_on(lease, member)
    previous.worker = None
    state.sweep_due = True


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
    stop = start + held.count
    while start < min(stop, chunk.count) and _settled(state, held.token, chunk, start):
        # The reply that said so never arrived.
        start += 1
    if not start < stop <= chunk.count or chunk.count_in(JobState.READY, start, stop) != stop - start:
        return False
    state.skip_ready(chunk, start, stop)
    lease = state.grant_lease(chunk, start, stop, member, now, token=held.token)
    if state.ledger.losses.of(chunk, start) is not None:
        state.suspects.running.append(lease)
        state.upkeep_at = 0.0
    return True


def _settled(state: QueueState, token: int, chunk: Chunk, index: int) -> bool:
    """Return whether the outcome of the attempt under *token* at a job is recorded."""
    number = chunk.first + index
    return chunk.has_ended(index) or state.ledger.settled.has(token, number, 1, failed=True)
