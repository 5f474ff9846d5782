"""Requests of a consumer at the far end of a link, which asks for jobs while it runs others."""

from __future__ import annotations

import threading
from datetime import timedelta

from svc.broker.base import Broker
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.scheduling.read_ahead import EARLY_SECONDS, EARLY_TRIPS
from tests.support.asking import chunk, lease_one, record, submit

TRIP = 0.5
#: The run time of the jobs here, in seconds, and when the next job is granted behind one.
RUN = 5.0
OPENS = RUN - EARLY_TRIPS * TRIP - EARLY_SECONDS
AHEAD = timedelta(seconds=0.02)
LONG = timedelta(seconds=60)


def learn(queue: Broker, consumer: Broker, seconds: float, task: str = "m:f") -> None:
    """Let the queue know the run time of a task: the last one counts if it is longer."""
    submit(queue, chunk(0, 4, task=task), origin=f"{task}{seconds}")
    for _ in range(4):
        delivery = lease_one(consumer)
        record(consumer, c.Ack(delivery.token, delivery.first, [b"r"], [seconds]))


def ask(consumer: Broker, wait: timedelta = timedelta(0), outcomes: tuple[c.Ack, ...] = ()) -> r.Grant:
    request = c.Lease(9, wait.total_seconds(), AHEAD.total_seconds(), running=True)
    return consumer.take(request, outcomes).grant


def asking(consumer: Broker) -> tuple[threading.Thread, list[r.Grant]]:
    """Ask in a thread; return it, and the list that gets the answer."""
    got: list[r.Grant] = []
    thread = threading.Thread(target=lambda: got.append(ask(consumer, LONG)))
    thread.start()
    return thread, got
