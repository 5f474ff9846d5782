"""Short functions for the requests that tests of the queue make most often."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from svc.broker.base import Broker, expect
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.job import ErrorInfo, NewChunk, Terms

NOW = timedelta(0)
ERROR = ErrorInfo("ValueError", "no", "Traceback …")


def chunk(first: int = 0, count: int = 1, *, delay: float = 0.0, key: str = "", **terms: Any) -> NewChunk:
    """Return *count* jobs; the body of each is its number."""
    bodies = [b"%d" % number for number in range(first, first + count)]
    return NewChunk(first, Terms(**{"task": "m:f", **terms}), bodies, delay, key)


def submit(queue: Broker, *chunks: NewChunk, origin: str = "o") -> list[r.Note]:
    return queue.submit(origin, chunks or (chunk(),))


def lease(
    consumer: Broker, limit: int = 1, wait: timedelta = NOW, ahead: timedelta | None = None
) -> list[r.Delivery]:
    return consumer.lease(limit=limit, wait=wait, ahead=ahead).grant.deliveries


def lease_one(consumer: Broker) -> r.Delivery:
    """Lease one job; fail if there is none."""
    (delivery,) = lease(consumer)
    return delivery


def record(
    queue: Broker, command: c.Ack | c.Nack | c.Release | c.Extend | c.Checkpoint | c.Yield | c.Recall
) -> int:
    """Send one report alone; return the count in its answer.

    Raises:
        ServiceError: it was refused.
    """
    return expect(queue.call([command])[0], r.Done).count


def numbers(deliveries: Sequence[r.Delivery]) -> list[int]:
    """Return the numbers of the jobs in *deliveries*, in order."""
    return [each.first + index for each in deliveries for index in range(len(each.bodies))]


def ack_of(delivery: r.Delivery, result: bytes = b"r") -> c.Ack:
    """Return the ack of all jobs of a lease."""
    count = len(delivery.bodies)
    return c.Ack(delivery.token, delivery.first, [result] * count, [0.5] * count)


def nack_of(delivery: r.Delivery, retry_in: float | None = None) -> c.Nack:
    """Return the nack of the first job of a lease."""
    return c.Nack(delivery.token, delivery.first, ERROR, retry_in)


def states(queue: Broker, *ids: str) -> list[str]:
    return [view.state for view in queue.get(ids)]


def counts(queue: Broker, name: str = "default") -> r.QueueStats:
    return next((each for each in queue.stats().queues if each.name == name), r.QueueStats(name))
