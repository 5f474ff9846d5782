"""The members: connections with a role, and the leases that they hold.

A lease lasts as long as its holder. A plain client's leases last as long as its connection, a consumer's as
long as its worker's supervisor renews them. `upkeep.tick` explains the rules about time. The manager's own
clock is the only authority; it never runs backwards.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from svc.domain.chunk import Chunk
from svc.domain.commands import Extend, Hello
from svc.domain.job import CALL, DEFAULT_QUEUE, ITEM_CODEC, PILL
from svc.domain.job_view import Progress
from svc.domain.replies import Stop, TakeBack
from svc.domain.scheduling.lanes import Subscription

#: The role of who stands in for the holder of a lease that was lost: until `suspicion.judge` concludes, or
#: until the lease is given back with others (`returns`).
ON_TRIAL = "on trial"
#: Seconds that a consumer's leases outlive both its own connection and its supervisor's.
RECONNECT_GRACE = 0.5
#: Seconds since it was last heard of for which a connected supervisor surely lives: it tells once a second.
ALIVE_SECONDS = 3.0
#: Seconds since two processes of one name were last heard of for which a worker is shown as doubled.
DOUBLED_SECONDS = 60.0
#: Ended consumers of one worker that are remembered, so that a late hello of theirs is recognised.
ENDED_KEPT = 256
#: Those of all workers beyond which of one worker only the last few are remembered.
ALL_ENDED_KEPT = 64 * 1024
ENDED_FEW = 8


class Notice(NamedTuple):
    """A worker that `joined`, `left`, is `silent`, `lost` or `doubled`; or the begin or end of a drain.

    The latter is `drained` or `resumed`, and has the name of a worker or "".
    The jobs of a worker are those that went back since it was last heard of. Or `purging` and `purged`: the
    conditions of a purge, and the number of jobs that are gone by then.
    """

    what: str
    name: str
    jobs: int = 0
    host: str = ""


class LeaseRecord(msgspec.Struct, eq=False):
    """The right of one member to one attempt at the jobs [start, stop) of a chunk, under one token.

    Jobs are settled from the front, and given back from the end or all together. Since `since`, its first job
    may run, unless it is `behind` the jobs of an earlier lease. `progress` has the last reports of its jobs,
    by their numbers. If it is `overdue`, a job takes so long that those behind it were taken back.
    `older` and `newer` are those of the same chunk that were granted before and after it.
    """

    token: int
    chunk: Chunk
    start: int
    stop: int
    holder: Member
    granted_at: float
    since: float
    progress: dict[int, Progress] | None = None
    behind: bool = False
    overdue: bool = False
    older: LeaseRecord | None = None
    newer: LeaseRecord | None = None


class Member:
    """One connection that has said hello."""

    __slots__ = (
        "address",
        "claimed",
        "code",
        "connected",
        "displaced",
        "gone_at",
        "inside",
        "leases",
        "life",
        "name",
        "order",
        "outstanding",
        "pills",
        "purged",
        "reads_all",
        "role",
        "stops",
        "subscription",
        "worker",
    )

    def __init__(self, role: str = "client", name: str = "", *, inside: bool = False) -> None:
        """Make a member without leases; one *inside* the manager may use the reserved names."""
        self.inside = inside
        #: The remote address, as the manager sees it; "" if the member came over no network.
        self.address = ""
        #: Whether it may look at jobs of others; a connection's key may forbid that.
        self.reads_all = True
        #: The number of the connection, in order of arrival; 0 if connections are not counted.
        self.order = 0
        #: Requests on this connection that have no reply yet; 0 if requests are not counted.
        self.outstanding = 0
        #: Pills of a drain that a plain client got and has not acknowledged.
        self.pills = 0
        #: Jobs that it has purged since it began the purge that goes on.
        self.purged = 0
        self.role = role
        self.name = name
        #: The version of the code of its tasks, if it is a consumer that tells it.
        self.code = ""
        self.worker: Worker | None = None
        #: The worker whose supervisor it was, until another connection took its place.
        self.displaced: Worker | None = None
        #: The life of its worker's process, as its hello says; a later process may have the worker's name.
        self.life = 0
        #: The jobs that it takes; by default all jobs of the default queue.
        self.subscription: Subscription = (frozenset((DEFAULT_QUEUE,)), None, None)
        self.leases: dict[int, LeaseRecord] = {}
        #: The attempts of cancelled jobs that it may still run: jobs of its last leases.
        self.stops: list[Stop] = []
        self.connected = True
        self.gone_at = 0.0
        #: Whether only its supervisor has spoken for it: it has not come back after a restart.
        self.claimed = False

    @property
    def leased(self) -> int:
        """The jobs that it holds."""
        return sum(lease.stop - lease.start for lease in self.leases.values())


def begin_next(holder: Member, now: float) -> None:
    """Note that the first job of the next lease of *holder* may run from now on, if it was behind another."""
    lease = next(iter(holder.leases.values()), None)
    if lease is not None and lease.behind:
        lease.behind, lease.since = False, now


def subscription_of(hello: Hello) -> Subscription:
    """Return the subscription of a member that says *hello*."""
    queues = frozenset(hello.queues or (DEFAULT_QUEUE,))
    tasks = frozenset((*hello.tasks, PILL, CALL)) if hello.role == "consumer" else None
    return queues, tasks, None if hello.accept is None else frozenset((*hello.accept, ITEM_CODEC))


@dataclass(slots=True)
class Worker:
    """A supervisor and its consumers.

    `ended` has consumers whose processes have ended, with the number of connections that had come by then.
    `life` is the number that the supervisor chose when it began; 0 of an older one. `stops_made` counts the
    orders to end attempts of its consumers, `taken_back` the jobs that went back since it was last heard of.
    `take_back` has the orders that wait for its next renewal.
    The names of consumers in its last `report` take `named_bytes`.
    If it is `reported_silent`, the log has been told so since then. If it is `reported_doubled`, the log has
    been told that two processes have its name; both were last heard of at `doubled_at`.
    """

    name: str
    hello: Hello | None = None
    supervisor: Member | None = None
    consumers: dict[str, Member] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)
    life: int = 0
    report: Extend = field(default_factory=Extend)
    named_bytes: int = 0
    connected_at: float = 0.0
    seen_at: float = 0.0
    expires: float = 0.0
    stops_made: int = 0
    taken_back: int = 0
    take_back: list[TakeBack] = field(default_factory=list)
    reported_silent: bool = False
    reported_doubled: bool = False
    doubled_at: float = float("-inf")

    def heard(self, now: float, lease_seconds: float) -> None:
        """Renew the leases of its consumers."""
        self.seen_at = now
        self.expires = now + lease_seconds
        self.taken_back = 0
        self.reported_silent = False

    def note_ended(self, consumer: str, arrivals: int, workers: Iterable[Worker]) -> None:
        """Remember that a consumer's process has ended, after so many *arrivals*; *workers* are all."""
        self.ended[consumer] = arrivals
        if len(self.ended) <= ENDED_FEW:
            return
        most = ENDED_KEPT if sum(len(each.ended) for each in workers) <= ALL_ENDED_KEPT else ENDED_FEW
        while len(self.ended) > most:
            del self.ended[next(iter(self.ended))]

    def is_silent(self, now: float) -> bool:
        """Return whether it was not heard of for a whole lease time: its consumers have no leases then."""
        return now >= self.expires

    def notice(self, what: str) -> Notice:
        """Return a notice for the log that it came, or went."""
        return Notice(what, self.name, self.taken_back, self.hello.host if self.hello is not None else "")

    def is_doubled(self, hello: Hello, now: float) -> bool:
        """Return whether the supervisor that says *hello* has the name of another one, which lives."""
        other_lives = self.supervised and now < self.seen_at + ALIVE_SECONDS
        return hello.role == "worker" and hello.life != self.life and other_lives

    def heard_of_displaced(self, member: Member, now: float) -> None:
        """Note that *member* lives, whose place its supervisor has taken; it may be another process."""
        if self.supervisor is not None and self.supervisor.life != member.life:
            self.doubled_at = now

    def shows_doubled(self, now: float) -> bool:
        """Return whether two processes of its name were heard of lately."""
        return now < self.doubled_at + DOUBLED_SECONDS

    @property
    def round_trip(self) -> float:
        """The seconds of a request that is answered at once, as the worker measured it; 0 if it has not."""
        return self.report.round_trip

    def lacks(self, consumer: str) -> bool:
        """Return whether the supervisor names its consumers, and this is none of them."""
        return self.report.consumers is not None and consumer not in self.report.consumers

    def members(self) -> Iterator[Member]:
        """Iterate over the supervisor, if there is one, and the consumers."""
        if self.supervisor is not None:
            yield self.supervisor
        yield from self.consumers.values()

    @property
    def supervised(self) -> bool:
        """Whether the supervisor is connected."""
        return self.supervisor is not None and self.supervisor.connected

    @property
    def present(self) -> bool:
        """Whether the supervisor or a consumer of the worker is connected."""
        return self.supervised or any(member.connected for member in self.consumers.values())
