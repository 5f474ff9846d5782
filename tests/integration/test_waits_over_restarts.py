"""Waits without a timeout go on after a restart of the manager, however late in one of their calls."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from datetime import timedelta

import pytest

from svc.broker.host import QueueHost
from svc.broker.journal import MemoryJournal
from svc.broker.manager import ManagerBroker
from svc.client import outcomes, session
from svc.client.client import BrokerClient
from svc.domain import commands as c
from svc.server.manager import Server, listen
from svc.wire import PROTOCOL_VERSION
from tests.support.asking import ack_of, record
from tests.support.memory_journals import reopened

#: Seconds that one call waits, and the seconds beyond these in which it must be answered.
WAIT, TIMEOUT = 4.5, 4.0
#: Seconds after the beginning of a call at which the manager is restarted: the same wait once more would end
#: after the time of the call.
RESTART = 4.2


class Restarted:
    """A manager that a test restarts at the same address."""

    def __init__(self) -> None:
        self.authkey = secrets.token_bytes(32)
        self.endpoint = ("127.0.0.1", 0)
        self._journal = MemoryJournal()
        self._begin()

    def broker(self, hello: Callable[[], c.Hello] | None = None) -> ManagerBroker:
        return ManagerBroker(self.endpoint, self.authkey, hello=hello, timeout=TIMEOUT)

    def restart(self) -> None:
        self.stop()
        self._journal = reopened(self._journal)
        self._begin()

    def stop(self) -> None:
        self._server.stop()
        self._thread.join(30)
        assert not self._thread.is_alive()

    def _begin(self) -> None:
        self._server = Server(QueueHost(self._journal), listen(*self.endpoint), self.authkey)
        self.endpoint = self._server.endpoint
        self._thread = threading.Thread(target=self._server.serve_forever, name="manager", daemon=True)
        self._thread.start()


@pytest.fixture
def manager() -> Iterator[Restarted]:
    manager = Restarted()
    yield manager
    manager.stop()


@pytest.fixture
def client(manager: Restarted, monkeypatch: pytest.MonkeyPatch) -> Iterator[BrokerClient]:
    """A client like `svc.Client`, whose calls wait for a shorter time."""
    for module in (session, outcomes):
        monkeypatch.setattr(module, "SLICE_SECONDS", WAIT)
    with BrokerClient(manager.broker, patience=TIMEOUT) as client:
        yield client


def pass_by(moment: float) -> None:
    """Wait until *moment* of the monotonic clock."""
    threading.Event().wait(max(0.0, moment - time.monotonic()))


def begun(call: Callable[[], object]) -> Future[object]:
    """Call in a thread that holds nobody up if it never ends."""
    future: Future[object] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def consumer_of(manager: Restarted, task: str) -> ManagerBroker:
    hello = c.Hello(PROTOCOL_VERSION, "consumer", name="w-1", worker="w", tasks=[task])
    return manager.broker(lambda: hello)


def test_every_wait_of_a_client_and_of_a_consumer_outlives_a_restart(manager, client):
    job = client.submit("m:f")
    idle = consumer_of(manager, "m:other")
    idle.connect()
    waits: list[Callable[[], object]] = [
        job.result,
        lambda: client.results([job]),
        lambda: [each.id for each in client.as_completed([job])],
        lambda: client.outcomes([job.id])[0].state.word,
        lambda: list(job.stream()),
        lambda: list(client.map("m:f", ["a"])),
        lambda: client.feed(wait=WAIT).cursor,
        lambda: idle.lease(limit=1, wait=timedelta(seconds=WAIT)).grant.deliveries,
    ]
    started = time.monotonic()
    waiting = [begun(each) for each in waits]
    pass_by(started + RESTART)
    manager.restart()
    # The calls that a restart has broken have failed or have been answered by then.
    pass_by(started + WAIT + TIMEOUT + 0.2)
    worker = consumer_of(manager, "m:f")
    ended = 0
    for _ in range(10):
        for delivery in worker.lease(limit=2, wait=timedelta(seconds=WAIT)).grant.deliveries:
            ended += len(delivery.bodies)
            record(worker, ack_of(delivery, b"\x07"))
        if ended == 2:
            break
    assert not wait(waiting, 30).not_done
    worker.close()
    idle.close()

    assert [each.result() for each in waiting] == [7, [7], [job.id], "succeeded", [], [7], 0, []]
