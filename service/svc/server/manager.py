"""The manager's server: the `BaseManager`, the listener it serves on, and the life of its event loop."""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import select
import socket
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from multiprocessing import managers
from typing import TYPE_CHECKING, TypeVar

import structlog

from svc.broker.broken import StateBroken
from svc.broker.host import QueueHost
from svc.errors import Conflict, ManagerBroken
from svc.server.connection_limits import Bounds, ConnectionLimits
from svc.server.connections import Connections
from svc.server.heap import Heap
from svc.server.keys import KeyRing
from svc.server.loop import Loop, Turns
from svc.server.opening import SERVER_METHODS
from svc.server.peer_log import PeerLog
from svc.server.protocol import ConnectionProtocol
from svc.server.recovery import Recovery
from svc.server.scarcity import Scarcity

if TYPE_CHECKING:
    import ssl

T = TypeVar("T")

#: Connections that may wait to be accepted; the kernel may cut it to `net.core.somaxconn`.
BACKLOG = 4096


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Raises:
        Conflict: the address is in use, or is not one of this host.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise Conflict(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another `--listen` address"
        ) from None


class Server(managers.Server):
    """A replacement of the stdlib's manager server: it serves the same clients without a thread for each.

    The stdlib's `shutdown`, `debug_info`, `number_of_objects` and `#GETVALUE` do not exist here.
    """

    public = list(SERVER_METHODS)

    def __init__(
        self,
        host: QueueHost,
        listener: socket.socket,
        keys: KeyRing | bytes,
        *,
        min_free_bytes: int = 0,
        bounds: Bounds | None = None,
        strict: bool = False,
        tls: ssl.SSLContext | None = None,
        heap: Heap | None = None,
    ) -> None:
        """Serve the queue of *host* on *listener*.

        Args:
            host: the queue.
            listener: a bound socket that listens.
            keys: the keys that are accepted, each with its role; or one key that may do everything.
            min_free_bytes: free disk space below which new jobs are refused.
            bounds: limits for connections, and for the bytes that wait on them.
            strict: refuse peers that answer the challenge with anything older than SHA-256.
            tls: the TLS context of all connections; None serves without TLS.
            heap: the C library's heap, to tune for large messages; only if the process is the manager's own.
        """
        # Not the stdlib's __init__: it would open a listener of its own.
        self._host = host
        #: Makes the queue refuse new jobs while disk space or memory is short.
        self.scarcity = Scarcity(min_free_bytes)
        #: What is done if the queue's state breaks; may be replaced by one that leaves reports.
        self.recovery = Recovery()
        #: Host and port that are served.
        self.endpoint: tuple[str, int] = listener.getsockname()[:2]
        self.address = self.endpoint
        ring = KeyRing.of_authkey(keys) if isinstance(keys, bytes) else keys
        self._epoll = select.epoll()
        self._connections = Connections(
            host,
            listener,
            ConnectionLimits(bounds or Bounds(), len(ring)),
            self._epoll,
            peer_log=PeerLog(host.observer),
            tls=tls,
            heap=heap,
        )
        self._turns = Turns()
        self._protocol = ConnectionProtocol(host, ring, self._connections, self._turns, strict=strict)
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._loop = Loop(
            host,
            self._connections,
            self._turns,
            self._epoll,
            handle=self._protocol.handle,
            readers={self._wake_read: self._run_calls, listener.fileno(): self._connections.accept},
            keep_house=self._keep_house,
        )
        self._calls: deque[Callable[[], None]] = deque()
        host.on_settled(self.wake)
        self._log = structlog.get_logger("svc.manager")

    def serve_forever(self) -> None:
        """Serve until `stop`; then finish the current commit, answer its requests, and close everything.

        Raises:
            JournalError: a commit failed; nothing was acknowledged after the last successful commit.
            ManagerBroken: the queue's state broke and could not be recovered in place.
        """
        self._connections.listen()
        self._epoll.register(self._wake_read, select.EPOLLIN)
        try:
            while not self._loop.stopping:
                self._serve_or_recover()
            self._finish()
        finally:
            self._close()

    def _serve_or_recover(self) -> None:
        """Serve turns; if the queue's state breaks, close every connection and recover in place."""
        broke = False
        try:
            self._loop.run()
        except StateBroken as broken:
            self.recovery.discard(self._host, broken)
            broke = True
        if not broke and not self._host.clock_accepted:
            return
        # After the except block, the exception's frames no longer hold references to the old state.
        self._connections.close_all()
        self._turns.forget()
        if broke:
            self.recovery.recover(self._host)
        else:
            self._log.warning("clock_accepted", leap_s=round(self._host.set_clock(), 3))
        self._protocol.begin_anew()

    def _keep_house(self, now: float) -> None:
        self._connections.cut_off_slow(now)
        self.scarcity.look(self._host, now)

    @property
    def pacing(self) -> bool:
        """Whether peers wait to be let in; only for the loop's own thread."""
        return self._connections.pacing

    def renew(self, keys: KeyRing, tls: ssl.SSLContext | None) -> None:
        """Accept only peers with one of *keys* from now on, and end connections whose key is not among them.

        Only for the loop's own thread: see `ask`.
        """
        self._protocol.renew(keys)
        self._connections.renew(keys, tls)
        self._log.info("keys_read", keys=len(keys))

    # --- other threads ------------------------------------------------------------------------------

    def stop(self) -> None:
        """Make `serve_forever` return soon. Safe from any thread and from a signal handler."""
        self._loop.stopping = True
        self.wake()

    def wake(self) -> None:
        """End the wait of the current turn."""
        # A full pipe wakes the loop too, and a closed pipe means that the loop has ended.
        with contextlib.suppress(OSError):
            os.write(self._wake_write, b"\0")

    def ask(self, function: Callable[[], T]) -> Future[T]:
        """Run *function* in the loop's thread; any thread may wait for the future."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(function())
            except StateBroken as broken:
                future.set_exception(ManagerBroken(f"{broken}; the manager recovers in place"))
                raise
            except Exception as error:  # noqa: BLE001  # it is raised in the thread that asked
                future.set_exception(error)

        self._calls.append(run)
        self.wake()
        return future

    def _run_calls(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        while self._calls:
            self._calls.popleft()()

    # --- the end ------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Stop accepting connections; commit and answer the requests that have been read."""
        self._connections.stop_listening()
        try:
            self._turns.until = math.inf
            self._turns.go_on()
            self._run_calls()
            self._host.answer_reports()
            self._host.turn()
            self._host.settle()
        except StateBroken as broken:
            self.recovery.discard(self._host, broken)

    def _close(self) -> None:
        self._connections.close()
        self._epoll.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
        self._host.close()


class JobManager(managers.BaseManager):
    """A BaseManager whose server is the event loop.

    A client of it needs only the stdlib: `BaseManager.register("tasks")`, then `connect()`.
    """

    def __init__(self, server: Server) -> None:
        """Manage *server*."""
        # The stdlib's own key is not used here, but nobody may know it.
        super().__init__(address=server.endpoint, authkey=secrets.token_bytes(32))
        self._server = server

    def get_server(self) -> Server:
        """Return the server.

        The stdlib's own `get_server` ignores `_Server` and always makes its thread-per-connection one.
        """
        return self._server


for _typeid in ("tasks", "results", "jobs"):
    JobManager.register(_typeid)
