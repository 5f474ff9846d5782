"""The members: connections with a role, and the leases that they hold.

A lease lasts as long as its holder. A plain client's leases last as long as its connection, a consumer's as
long as its worker's supervisor renews them. `upkeep.tick` explains the rules about time. The manager's own
clock is the only authority; it never runs backwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from svc.domain.chunk import Chunk
from svc.domain.commands import Extend, Hello
from svc.domain.job import CALL, DEFAULT_QUEUE, ITEM_CODEC, PILL
from svc.domain.scheduling.lanes import Subscription

#: The role of who stands in for the holder of a lease that was lost, until `suspicion.judge` concludes.
ON_TRIAL = "on trial"
#: Seconds that a consumer's leases outlive both its own connection and its supervisor's.
RECONNECT_GRACE = 0.5


@dataclass(slots=True, eq=False)
class LeaseRecord:
    """The right of one member to one attempt at the jobs [start, stop) of a chunk, under one token.

    Jobs are settled from the front, and given back from the end or all together. Since `since`, its first job
    may run.
    """

    token: int
    chunk: Chunk
    start: int
    stop: int
    holder: Member
    granted_at: float
    since: float


class Member:
    """One connection that has said hello."""

    __slots__ = (
        "address",
        "connected",
        "gone_at",
        "inside",
        "leases",
        "life",
        "name",
        "order",
        "outstanding",
        "pills",
        "reads_all",
        "role",
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
        self.role = role
        self.name = name
        self.worker: Worker | None = None
        #: The life of its worker's process, as its hello says; a later process may have the worker's name.
        self.life = 0
        #: The jobs that it takes; by default all jobs of the default queue.
        self.subscription: Subscription = (frozenset((DEFAULT_QUEUE,)), None, None)
        self.leases: dict[int, LeaseRecord] = {}
        self.connected = True
        self.gone_at = 0.0


def subscription_of(hello: Hello) -> Subscription:
    """Return the subscription of a member that says *hello*."""
    queues = frozenset(hello.queues or (DEFAULT_QUEUE,))
    tasks = frozenset((*hello.tasks, PILL, CALL)) if hello.role == "consumer" else None
    return queues, tasks, None if hello.accept is None else frozenset((*hello.accept, ITEM_CODEC))


@dataclass(slots=True)
class Worker:
    """A supervisor and its consumers.

    `ended` has consumers whose processes have ended, with the number of connections that had come by then.
    `life` is the number that the supervisor chose when it began; 0 of an older one.
    """

    name: str
    hello: Hello | None = None
    supervisor: Member | None = None
    consumers: dict[str, Member] = field(default_factory=dict)
    ended: dict[str, int] = field(default_factory=dict)
    life: int = 0
    report: Extend = field(default_factory=Extend)
    connected_at: float = 0.0
    seen_at: float = 0.0
    expires: float = 0.0

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
