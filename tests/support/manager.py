"""A real manager in a thread of this process, for tests that look inside it."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from svc.broker.clock import ManagerClock
from svc.broker.host import QueueHost
from svc.broker.journal import Journal, MemoryJournal
from svc.broker.manager import ManagerBroker
from svc.domain.commands import Hello
from svc.domain.limits import Limits
from svc.domain.observer import Observer
from svc.server.connection_limits import Bounds
from svc.server.keys import KeyRing
from svc.server.manager import Server, listen
from svc.wire import PROTOCOL_VERSION
from svc.wire_tls import TlsFiles
from tests.support.inside import waiting_lessees


class RunningManager:
    """A server in its thread, and ways to call it."""

    def __init__(self, server: Server, host: QueueHost, authkey: bytes) -> None:
        self.server = server
        self.host = host
        self.authkey = authkey
        self.endpoint = server.endpoint
        self.ended = threading.Event()

    def broker(self, hello: Callable[[], Hello] | None = None, timeout: float = 30.0) -> ManagerBroker:
        """Return a new connection."""
        return ManagerBroker(self.endpoint, self.authkey, hello=hello, timeout=timeout)

    def consumer(self, name: str = "w-1", tasks: tuple[str, ...] = ("m:f",)) -> ManagerBroker:
        """Return a connection that has said hello as a consumer of worker `w`."""
        hello = Hello(PROTOCOL_VERSION, "consumer", name=name, worker="w", tasks=list(tasks))
        broker = self.broker(lambda: hello)
        broker.connect()
        return broker

    def until_ended(self) -> None:
        """Wait until the manager, which was stopped, serves no more."""
        assert self.ended.wait(60)

    def waiting(self) -> int:
        """Return the number of requests for a job that wait at the manager."""
        return self.server.ask(lambda: waiting_lessees(self.host)).result(60)

    def until(self, condition: Callable[[], bool], seconds: float = 60.0) -> None:
        """Call the manager repeatedly until *condition* holds; fail after *seconds*."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "the condition never held"
            self.server.ask(lambda: None).result(60)


@contextmanager
def running_manager(
    journal: Journal | None = None,
    limits: Limits | None = None,
    *,
    keys: KeyRing | None = None,
    bounds: Bounds | None = None,
    strict: bool = False,
    tls: TlsFiles | None = None,
    observer: Observer | None = None,
    at: tuple[str, int] = ("127.0.0.1", 0),
    clock: ManagerClock | None = None,
) -> Iterator[RunningManager]:
    """Serve a queue on a free port of loopback, or *at* another address, while the block runs."""
    authkey = secrets.token_bytes(32)
    host = QueueHost(journal or MemoryJournal(), limits=limits, observer=observer, clock=clock)
    context = tls.server_context() if tls else None
    server = Server(host, listen(*at), keys or authkey, bounds=bounds, strict=strict, tls=context)
    running = RunningManager(server, host, authkey)

    def serve() -> None:
        try:
            server.serve_forever()
        finally:
            running.ended.set()

    thread = threading.Thread(target=serve, name="manager", daemon=True)
    thread.start()
    try:
        yield running
    finally:
        server.stop()
        thread.join(60)
        assert not thread.is_alive()
