"""A consumer on a queue in this process, which runs jobs when a test says so."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from svc.broker.local import LocalBroker, LocalQueue
from svc.codec import decode_arguments, encode_result
from svc.domain import commands as c
from svc.domain.job import ErrorInfo
from svc.wire import PROTOCOL_VERSION
from tests.support.asking import record
from tests.support.pickle_keys import envelopes_of, opener


class Consumer:
    """Runs jobs when it is told to, one lease at a time."""

    def __init__(self, queue: LocalQueue, function: Callable[..., Any]) -> None:
        hello = c.Hello(PROTOCOL_VERSION, "consumer", "w/1", "w", "host", 1, ["t:f"], ["default", "other"])
        self.broker = LocalBroker(queue, lambda: hello)
        self.function = function

    def run(self, jobs: int = 1) -> None:
        while jobs:
            grant = self.broker.lease(limit=jobs, wait=timedelta(seconds=60)).grant
            assert grant.deliveries, "no job came"
            for delivery in grant.deliveries:
                jobs -= len(delivery.bodies)
                self.end(delivery)

    def end(self, delivery) -> None:
        for place, body in enumerate(delivery.bodies):
            number = delivery.first + place
            opened, envelopes = opener(delivery, place), envelopes_of(delivery, place)
            args, kwargs = decode_arguments(delivery.terms.codec, body, ["plain", "pickle"], opened)
            try:
                value = self.function(*args, **kwargs)
            except ValueError as error:
                info = ErrorInfo("ValueError", str(error), "Traceback: far away")
                record(self.broker, c.Nack(delivery.token, number, info))
            else:
                result = encode_result(delivery.terms.codec, value, envelopes)
                record(self.broker, c.Ack(delivery.token, number, [result], [0.1]))

    def later(self, jobs: int = 1) -> threading.Thread:
        thread = threading.Thread(target=self.run, args=[jobs])
        thread.start()
        return thread
