"""A worker's reporter with the real queue in memory, over a line that can be away."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from svc.broker.local import LocalBroker, LocalQueue
from svc.domain import commands as c
from svc.domain import replies as r
from svc.errors import ManagerUnreachable, ServiceError
from svc.worker.reporter import Reporter

SECONDS = 20.0
HELLO = c.Hello(1, "worker", "w", "w")


class Line(LocalBroker):
    """A connection that can be away, and that lets a test wait for a request."""

    def __init__(self, queue: LocalQueue, hello: Callable[[], c.Hello]) -> None:
        self.away = False
        self.refused = threading.Event()
        self.sent: list[c.AnyCommand] = []
        self.in_vain: list[c.AnyCommand] = []
        self.news = threading.Condition()
        self.hello = hello
        super().__init__(queue, hello)

    def call(self, commands: Sequence[c.AnyCommand], *, wait: float = 0.0) -> list[r.AnyReply]:
        with self.news:
            self.news.notify_all()
            if self.away:
                self.in_vain.extend(commands)
                self.refused.set()
                raise ManagerUnreachable("away")
            self.sent.extend(commands)
        return super().call(commands, wait=wait)

    def until(self, condition: Callable[[], Any]) -> None:
        with self.news:
            assert self.news.wait_for(condition, SECONDS)


class Desk:
    """A reporter and all that it calls."""

    def __init__(self) -> None:
        self.queue = LocalQueue()
        self.lines: list[Line] = []
        self.refusal: ServiceError | None = None
        self.errors: list[ServiceError] = []
        self.reconnections = 0
        self.alive = True
        self.told = False
        self.drains: list[bool] = []
        self.answers: list[r.Reply] = []
        self.line: type[Line] = Line
        self.renewed: Callable[[r.Extended], None] = lambda reply: self.drains.append(bool(reply.drain))
        self.asked = threading.Event()
        self.reporter = Reporter(
            self.connect,
            lambda: HELLO,
            lambda: c.Extend(busy=2, told=self.told),
            self.errors.append,
            self.reconnected,
            self.tell,
            lambda: self.alive,
        )

    def connect(self, hello: Callable[[], c.Hello]) -> Line:
        self.asked.set()
        if self.refusal is not None:
            raise self.refusal
        self.lines.append(self.line(self.queue, hello))
        return self.lines[-1]

    def reconnected(self) -> None:
        self.reconnections += 1

    def tell(self, reply: r.Extended) -> None:
        self.renewed(reply)

    def keep(self, checkpoint: c.Checkpoint, *, awaited: bool) -> None:
        self.reporter.keep(checkpoint, self.answers.append, awaited=awaited)

    def start(self) -> Line:
        self.reporter.start()
        while not self.lines:
            pass
        line = self.lines[-1]
        line.until(lambda: len(line.sent) > 1)
        return line
