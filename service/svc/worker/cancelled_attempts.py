"""The attempts at cancelled jobs that one consumer has to end, as its supervisor knows them.

An attempt that runs alone is the one that the slot shows. Of those that run side by side the slot shows only
one, so the consumer answers each order to end one, once that is over. While its event loop is blocked it
cannot: the order stays unanswered.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

from svc.domain.replies import Stop
from svc.worker.orders import END, OVER

#: A job of a lease, by the lease's token and the job's number.
Attempt = tuple[int, int]
_over: msgspec.msgpack.Decoder[list[Attempt]] = msgspec.msgpack.Decoder(list[Attempt])


@dataclass(slots=True)
class _Order:
    """The order to end an attempt by a monotonic time; whether the consumer has it, and has answered it."""

    deadline: float
    sent: bool = False
    answered: bool = False


class CancelledAttempts:
    """The orders of the manager to end attempts, until it gives them no more."""

    def __init__(self) -> None:
        """Begin with none."""
        self._orders: dict[Attempt, _Order] = {}
        #: The monotonic time of the last answer.
        self._answered_at = 0.0

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._orders)

    def __contains__(self, attempt: Attempt) -> bool:
        """Whether *attempt* is one of them."""
        return attempt in self._orders

    def renew(self, stops: Iterable[Stop], now: float) -> None:
        """Keep the orders that are in *stops*; each new one has its grace from *now* on."""
        before, self._orders = self._orders, {}
        for stop in stops:
            attempt = stop.token, stop.number
            self._orders[attempt] = before.get(attempt) or _Order(now + stop.grace)

    @property
    def unsent(self) -> bool:
        """Whether the consumer was not ordered to end all of them yet."""
        return any(not order.sent for order in self._orders.values())

    def send(self, now: float) -> bytes:
        """Return the order to end those that are not on their way yet, each with the rest of its grace."""
        new = [(attempt, order) for attempt, order in self._orders.items() if not order.sent]
        for _, order in new:
            order.sent = True
        return END + msgspec.msgpack.encode(
            [(*attempt, max(0.0, order.deadline - now)) for attempt, order in new]
        )

    def take(self, kind: bytes, body: bytes, now: float) -> bool:
        """Take a message if it tells that attempts are over, of which none runs beside others, or will."""
        if kind != OVER:
            return False
        self._answered_at = now
        for attempt in _over.decode(body):
            if order := self._orders.get(attempt):
                order.answered = True
        return True

    def deadline(self, attempt: Attempt) -> float | None:
        """Return the monotonic time by which *attempt* has to end; None if it need not."""
        order = self._orders.get(attempt)
        return None if order is None else order.deadline

    def unanswered_since(self) -> float | None:
        """Return the monotonic time since which an answer is due, or the next one; None if all have come."""
        due = min((order.deadline for order in self._orders.values() if not order.answered), default=None)
        return None if due is None else max(due, self._answered_at)
