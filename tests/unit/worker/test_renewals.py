"""How often a supervisor renews, over a real connection."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest

from svc.broker.manager import ManagerBroker
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.job import ErrorInfo
from svc.worker import reporter as module
from svc.worker.reporter import Reporter
from tests.support.asking import chunk, counts, lease, submit
from tests.support.manager import running_manager

SECONDS = 20.0
HELLO = c.Hello(1, "worker", "w", "w")


class CountedBroker(ManagerBroker):
    """A connection to a manager that lets a test wait for renewals."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.reports = 0
        self.renewals = 0
        self.news = threading.Condition()

    def call(self, commands: Sequence[c.AnyCommand], *, wait: float = 0.0) -> list[r.AnyReply]:
        replies = super().call(commands, wait=wait)
        with self.news:
            self.reports += any(isinstance(each, c.Lost) for each in commands)
            self.renewals += 1
            self.news.notify_all()
        return replies

    def until(self, condition: Callable[[], Any]) -> None:
        with self.news:
            assert self.news.wait_for(condition, SECONDS)

    def until_reported(self, count: int) -> None:
        self.until(lambda: self.reports == count)


def test_a_supervisor_that_has_reported_renews_as_seldom_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, each report made it ask five times in the time of one renewal, for ever."""
    monkeypatch.setattr(module, "_EXTEND_SECONDS", 0.2)
    monkeypatch.setattr(module, "_PARKING_PAUSE", 0.04)
    ignored: Any = lambda *_: None  # noqa: E731
    with running_manager() as manager:
        broker = CountedBroker(manager.endpoint, manager.authkey, hello=lambda: HELLO)
        extend = lambda: c.Extend(told=True)  # noqa: E731
        reporter = Reporter(
            lambda hello: broker, lambda: HELLO, extend, ignored, lambda: None, ignored, lambda: True
        )
        reporter.start()
        for count in range(1, 4):
            broker.until(lambda: reporter._waits_at)
            reporter.post(c.Lost(f"w/{count}", ErrorInfo("E", "m")))
            broker.until_reported(count)
        began = time.monotonic()  # first: a pause between the two makes the rate look lower, not higher
        before = broker.renewals
        broker.until(lambda: broker.renewals >= before + 10)
        seconds = time.monotonic() - began
        reporter.close(SECONDS)
        assert 10 / seconds < 8


def test_a_recall_goes_along_with_the_end_of_a_wait() -> None:
    """Otherwise it would come a round trip later, when the end of the wait has been answered."""
    wait = timedelta(seconds=SECONDS)
    greeting = c.Hello(1, "consumer", "w-1", "w", tasks=["m:f"])
    with running_manager() as manager:
        client = ManagerBroker(manager.endpoint, manager.authkey)
        consumer = ManagerBroker(manager.endpoint, manager.authkey, hello=lambda: greeting)
        supervisor = ManagerBroker(manager.endpoint, manager.authkey, hello=lambda: HELLO)
        submit(client, chunk(0, 2))
        supervisor.connect()
        (delivery,) = lease(consumer, 2)
        renewal = c.Extend(told=True, wait=SECONDS)
        waiting = threading.Thread(target=lambda: supervisor.report([renewal], wait))
        waiting.start()

        supervisor.wake(c.Recall("w-1", delivery.token, 0, delivery.token))

        waiting.join(SECONDS)
        assert counts(client).ready == 1
        for broker in (client, consumer, supervisor):
            broker.close()
