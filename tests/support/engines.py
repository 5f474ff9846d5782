"""The engines that the contract suite tests, each with the actions of a test beside the protocol."""

from __future__ import annotations

import abc
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from svc.broker.base import Broker
from svc.broker.host import QueueHost
from svc.broker.local import LocalBroker, LocalQueue
from svc.broker.manager import ManagerBroker
from svc.domain import commands as c
from svc.domain.limits import Limits
from svc.server.manager import Server, listen
from svc.wire import PROTOCOL_VERSION
from tests.support.clock import LeapingClock
from tests.support.inside import connection_count
from tests.support.journals import JOURNALS, SLOW_JOURNALS, Kept
from tests.support.ports import lasting_port

#: Limits that are so small that a test can reach them.
LIMITS = Limits(
    max_job_bytes=1000,
    max_queue_jobs=50,
    retention_jobs=500,
    merge_seconds=30.0,
    reconnect_seconds=1.0,
    max_value_bytes=10_000,
    all_values_bytes=40_000,
    piece_bytes=1000,
    grant_leases=30,
)
T = TypeVar("T")


class Engine(abc.ABC):
    """A queue, ways to join it, and actions on it."""

    def __init__(self, journals: Kept, limits: Limits = LIMITS) -> None:
        self.limits = limits
        self.clock = LeapingClock()
        self._brokers: list[Broker] = []
        self._journals = journals
        self._start()

    @abc.abstractmethod
    def join(self, hello: c.Hello | None = None) -> Broker:
        """Return a new broker that has said *hello*."""

    @abc.abstractmethod
    def cut(self, broker: Broker) -> None:
        """End a broker's connection like a killed process, and let the queue notice."""

    @abc.abstractmethod
    def inside(self, look: Callable[[QueueHost], T]) -> T:
        """Return the result of *look* on the queue's host."""

    @abc.abstractmethod
    def _start(self) -> None: ...

    @abc.abstractmethod
    def _stop(self) -> None: ...

    def client(self) -> Broker:
        return self._kept(self.join())

    def consumer(
        self,
        name: str = "w-1",
        worker: str = "w",
        *,
        tasks: Sequence[str] = ("m:f",),
        queues: Sequence[str] = (),
        held: Sequence[c.Held] = (),
        accept: list[str] | None = None,
        life: int = 0,
        code: str = "",
    ) -> Broker:
        """Return a consumer; *held* are the leases that it claims, at this hello only."""
        hello = c.Hello(
            PROTOCOL_VERSION,
            "consumer",
            name,
            worker,
            tasks=list(tasks),
            queues=list(queues),
            held=list(held),
            accept=accept,
            life=life,
            code=code,
        )
        return self._kept(self.join(hello))

    def supervisor(self, worker: str = "w", *, life: int = 0) -> Broker:
        return self._kept(self.join(c.Hello(PROTOCOL_VERSION, "worker", f"{worker}-0", worker, life=life)))

    def advance(self, seconds: float) -> None:
        """Advance the time, and let the queue notice."""
        self.clock.advance(seconds)
        self.inside(lambda host: host.turn())

    def restart(self) -> None:
        """Stop the queue and recover it from its journal. Earlier brokers cannot be used any more."""
        self._drop_brokers()
        self._stop()
        self._journals.reopen()
        self._start()

    def close(self) -> None:
        self._drop_brokers()
        self._stop()

    def until(self, condition: Callable[[QueueHost], bool]) -> None:
        """Check the queue repeatedly until *condition* holds; fail after a minute."""
        deadline = time.monotonic() + 60
        while not self.inside(condition):
            assert time.monotonic() < deadline, "the condition never held"
            time.sleep(0.001)

    def _kept(self, broker: Broker) -> Broker:
        self._brokers.append(broker)
        return broker

    def _drop_brokers(self) -> None:
        for broker in self._brokers:
            self._drop(broker)
        self._brokers.clear()

    @abc.abstractmethod
    def _drop(self, broker: Broker) -> None:
        """Free a broker's resources without a message."""


class LocalEngine(Engine):
    """The queue in this process."""

    def join(self, hello: c.Hello | None = None) -> Broker:
        return LocalBroker(self.queue, None if hello is None else lambda: hello)

    def cut(self, broker: Broker) -> None:
        assert isinstance(broker, LocalBroker)
        queue = broker.queue
        with queue._changed:
            queue.host.disconnected(broker.member)
            queue.host.turn()
            queue._changed.notify_all()

    def inside(self, look: Callable[[QueueHost], T]) -> T:
        with self.queue._changed:
            found = look(self.queue.host)
            self.queue._changed.notify_all()
        return found

    def _start(self) -> None:
        self.queue = LocalQueue(self._journals.journal, clock=self.clock, limits=self.limits)

    def _stop(self) -> None:
        self.queue.close()

    def _drop(self, broker: Broker) -> None:
        """Do nothing: it has no resources."""


class ManagerEngine(Engine):
    """A real manager in a thread of this process, over TCP."""

    _authkey = secrets.token_bytes(32)

    def __init__(self, journals: Kept, limits: Limits = LIMITS) -> None:
        # The same port after a restart, as for a manager in production.
        self._endpoint = "127.0.0.1", lasting_port()
        super().__init__(journals, limits)

    def join(self, hello: c.Hello | None = None) -> Broker:
        said = None if hello is None else (lambda: hello)
        broker = ManagerBroker(self._endpoint, self._authkey, hello=said, timeout=30.0)
        broker.connect()
        return broker

    def cut(self, broker: Broker) -> None:
        assert isinstance(broker, ManagerBroker)
        before = connection_count(self._server)
        self._drop(broker)
        self.until(lambda host: connection_count(self._server) < before)

    def inside(self, look: Callable[[QueueHost], T]) -> T:
        return self._server.ask(lambda: look(self._host)).result(60)

    def _start(self) -> None:
        self._host = QueueHost(self._journals.journal, clock=self.clock, limits=self.limits)
        self._server = Server(self._host, listen(*self._endpoint), self._authkey)
        self._thread = threading.Thread(target=self._server.serve_forever, name="manager")
        self._thread.start()

    def _stop(self) -> None:
        self._server.stop()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def _drop(self, broker: Broker) -> None:
        assert isinstance(broker, ManagerBroker)
        broker._discard()


def _maker(kind: type[Engine], journal: str) -> Callable[[Path, Limits], Engine]:
    return lambda folder, limits: kind(JOURNALS[journal](folder), limits)


#: Each way to the queue with each journal: how a test begins it in a folder.
ENGINES = {
    f"{way}-{journal}": _maker(kind, journal)
    for way, kind in (("local", LocalEngine), ("manager", ManagerEngine))
    for journal in JOURNALS
    if journal not in SLOW_JOURNALS
}
