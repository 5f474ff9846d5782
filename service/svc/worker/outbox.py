"""A consumer's outcomes that the manager does not have yet, and the leases that it holds until then."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from svc.broker.base import Settlement
from svc.domain.commands import Ack, Held, Nack
from svc.domain.replies import Delivery

#: Seconds that an outcome may wait for the next request while short jobs follow each other.
_UNSENT_SECONDS = 0.005
#: Bytes of results above which no more are collected, because one message has to hold them all.
_UNSENT_BYTES = 1 << 20


class Outbox:
    """Outcomes that wait to be sent; consecutive successes of one lease become one Ack.

    Attributes:
        since: monotonic time since which outcomes wait, or None if there is none.
        size: bytes of the results among them.
    """

    __slots__ = ("_ack", "_settlements", "since", "size")

    def __init__(self) -> None:
        self.size = 0
        self._settlements: list[Settlement] = []
        self._ack: Ack | None = None
        self.since: float | None = None

    def succeeded(self, token: int, number: int, result: bytes, seconds: float, now: float) -> None:
        """Add the result of one job."""
        self.size += len(result)
        ack = self._ack
        if ack is not None and ack.token == token and ack.first + len(ack.results) == number:
            ack.results.append(result)
            ack.seconds.append(seconds)
            return
        self._ack = Ack(token, number, [result], [seconds])
        self._add(self._ack, now)

    def add(self, settlement: Settlement, now: float) -> None:
        """Add any other outcome."""
        self._ack = None
        self._add(settlement, now)

    def _add(self, settlement: Settlement, now: float) -> None:
        self._settlements.append(settlement)
        if self.since is None:
            self.since = now

    def due(self, now: float) -> bool:
        """Whether the outcomes should wait no longer for the next request."""
        since = self.since
        return since is not None and (now - since > _UNSENT_SECONDS or self.full)

    @property
    def full(self) -> bool:
        """Whether there is no room for more results."""
        return self.size > _UNSENT_BYTES

    def postpone(self, until: float) -> None:
        """Let no outcome be due before *until*, a monotonic time: the manager is away."""
        self.since = until

    def content(self) -> Sequence[Settlement]:
        """Return all outcomes, oldest first; the returned sequence and its outcomes do not change later."""
        self._ack = None
        return tuple(self._settlements)

    def sent(self, settlements: Sequence[Settlement]) -> None:
        """Forget the outcomes that `content` returned, because the manager has them now."""
        del self._settlements[: len(settlements)]
        self.since = None
        self.size = 0


class Holdings:
    """The leases of a consumer, which the hello of a new connection has to name.

    A job stays here until the manager has its outcome, and not only until it has run. A manager that was
    restarted meanwhile restores the named leases, and can then take the outcome.
    """

    __slots__ = ("_leases",)

    def __init__(self) -> None:
        self._leases: dict[int, Held] = {}

    def add(self, deliveries: Iterable[Delivery]) -> None:
        """Add new leases."""
        for delivery in deliveries:
            count = len(delivery.bodies)
            self._leases[delivery.token] = Held(delivery.token, delivery.origin, delivery.first, count)

    def drop(self, token: int, number: int) -> None:
        """Remove job *number* of a lease and all jobs after it."""
        held = self._leases.get(token)
        if held is not None:
            self._keep(token, held.first, min(number, held.first + held.count))

    def settled(self, settlements: Iterable[Settlement]) -> None:
        """Remove the jobs whose outcomes the manager has."""
        for settlement in settlements:
            held = self._leases.get(settlement.token)
            if held is None:
                continue
            if isinstance(settlement, Ack):
                self._keep(held.token, settlement.first + len(settlement.results), held.first + held.count)
            elif isinstance(settlement, Nack):
                self._keep(held.token, settlement.number + 1, held.first + held.count)
            else:
                self._keep(held.token, held.first, min(settlement.first, held.first + held.count))

    def all(self) -> list[Held]:
        """Return the leases that are held."""
        return list(self._leases.values())

    def _keep(self, token: int, first: int, stop: int) -> None:
        if first < stop:
            self._leases[token] = Held(token, self._leases[token].origin, first, stop - first)
        else:
            del self._leases[token]
