"""The manager's event loop: one thread, every connection, one commit each turn.

Each turn reads the readable connections, applies every command to the queue, commits once, and then sends the
replies (`broker.host`). Handshakes are stages of a connection, not threads. A waiting `get` is an entry in
the host, which removes it if its socket closes.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from multiprocessing import managers
from typing import TYPE_CHECKING, TypeVar

import structlog

from svc.broker.broken import StateBroken, is_told
from svc.broker.host import QueueHost
from svc.errors import ManagerBroken
from svc.server.connection import Connection, PeerGone, TlsRefused, TooLarge
from svc.server.connection_limits import Bounds, ConnectionLimits
from svc.server.connections import HOUSEKEEPING_SECONDS, Connections
from svc.server.heap import LARGE_BYTES, Heap
from svc.server.keys import KeyRing
from svc.server.protocol import SERVER_METHODS, ConnectionProtocol
from svc.server.recovery import Recovery
from svc.server.scarcity import Scarcity
from svc.server.telling import NOTED_SECONDS, Telling
from svc.server.turns import BACKLOG_PART, Turns

#: From this many seconds without reading, as in a stopped process, leases and timeouts are extended by them.
STALL_SECONDS = 1.0
#: Seconds between two notes of what the clock shows, for the next start.
TIME_NOTED_SECONDS = 10.0
#: Seconds in a turn after which a commit does not wait for requests that still come.
GATHER_SECONDS = 0.002
#: The events that tell that a peer has gone, while its connection is not read.
_GONE = select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP

if TYPE_CHECKING:
    import ssl

T = TypeVar("T")


class Server(managers.Server):
    """A replacement of the stdlib's manager server: it serves the same clients without a thread for each.

    `svc.server.manager.JobManager.get_server` makes it. The stdlib's `shutdown`, `debug_info`,
    `number_of_objects` and `#GETVALUE` do not exist here.
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
        self._listener = listener
        #: Makes the queue refuse new jobs while disk space or memory is short.
        self.scarcity = Scarcity(min_free_bytes)
        #: Host and port that are served.
        self.endpoint: tuple[str, int] = listener.getsockname()[:2]
        self.address = self.endpoint
        ring = KeyRing.of_authkey(keys) if isinstance(keys, bytes) else keys
        self._turns = Turns()
        self._telling = Telling(host.observer)
        self._epoll = select.epoll()
        self._connection_limits = ConnectionLimits(bounds or Bounds(), len(ring))
        self._connections = Connections(
            host, listener, self._connection_limits, self._epoll, telling=self._telling, tls=tls, heap=heap
        )
        self._protocol = ConnectionProtocol(
            host, ring, self._connections, strict=strict, turns=self._turns, telling=self._telling
        )
        #: Whether paused connections may be read again, but this turn has no time left for them.
        self._resumable = False
        #: When the loop last read messages or waited for them (monotonic).
        self._listened_at = 0.0
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._calls: deque[Callable[[], None]] = deque()
        self._stopping = False
        self._maintaining = False
        self._next_housekeeping = 0.0
        self._next_note = 0.0
        #: What is done if the queue's state breaks; may be replaced by one that leaves reports.
        self.recovery = Recovery()
        self._log = structlog.get_logger("svc.manager")

    # --- life ---------------------------------------------------------------------------------------

    def serve_forever(self) -> None:
        """Serve until `stop`; then finish the current commit, answer its requests, and close everything.

        Raises:
            JournalError: a commit failed; nothing was acknowledged after the last successful commit.
            ManagerBroken: the queue's state broke and could not be recovered in place.
        """
        self._connections.listen()
        self._epoll.register(self._wake_read, select.EPOLLIN)
        self._listened_at = time.monotonic()
        try:
            while not self._stopping:
                self._turn_or_recover()
            self._finish()
        finally:
            self._close()

    def stop(self) -> None:
        """Make `serve_forever` return soon. Safe from any thread and from a signal handler."""
        self._stopping = True
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

    @property
    def connection_count(self) -> int:
        """How many connections there are, including those in their handshake."""
        return len(self._connection_limits.connections)

    def renew(self, keys: KeyRing, tls: ssl.SSLContext | None) -> None:
        """Accept only peers with one of *keys* from now on, and end connections whose key is not among them.

        Only for the loop's own thread: see `ask`.
        """
        self._protocol.keys = keys
        self._connections.renew(keys, tls)
        self._log.info("keys_read", keys=len(keys))

    # --- one turn -----------------------------------------------------------------------------------

    def _turn_or_recover(self) -> None:
        """Serve a turn; if the queue's state breaks in it, close every connection and recover in place."""
        broke = False
        try:
            self._turn()
        except StateBroken as broken:
            self.recovery.discard(self._host, broken)
            broke = True
        if not broke and not self._host.clock_accepted:
            return
        # After the except block, the exception's frames no longer hold references to the old state.
        self._connections.part_from_all()
        self._turns.forget()
        if broke:
            self.recovery.recover(self._host)
        else:
            self._log.warning("clock_accepted", leap_s=round(self._host.set_clock(), 3))
        self._protocol.begin_anew()

    def _turn(self) -> None:
        events = self._wait()
        started = time.monotonic()
        if self._turns.pending:
            self._turns.begin(BACKLOG_PART)
            self._turns.go_on()
        self._turns.begin()
        self._attend(events)
        self._gather(started)
        self._allow_for_stall()
        begun = time.perf_counter()
        for notice in self._host.turn():
            self._telling.noticed(notice)
        seconds = time.perf_counter() - begun
        if seconds > NOTED_SECONDS:
            self._telling.worked("commit", "none", seconds)
        self._resume()
        self._maintaining = self._host.journal.maintain(idle=not events)
        now = time.monotonic()
        self._connections.keep_time(now)
        if now >= self._next_housekeeping:
            self._next_housekeeping = now + HOUSEKEEPING_SECONDS
            self._housekeeping(now)
        self._telling.turned(time.monotonic() - started)

    def _wait(self) -> list[tuple[int, int]]:
        """Wait until there is work; return the descriptors that are ready, each with its events."""
        busy = self._maintaining or self._resumable or self._turns.pending
        timeout = 0.0 if busy else self._connections.seconds_to_next(self._host.seconds_to_next())
        self._allow_for_stall()
        events = self._epoll.poll(timeout)
        self._allow_for_stall(timeout)
        return events

    def _allow_for_stall(self, listening: float = 0.0) -> None:
        """Extend leases and timeouts if the loop did not read messages for a long time.

        Args:
            listening: the most seconds since the last call that may have been spent waiting for messages.
        """
        before, self._listened_at = self._listened_at, time.monotonic()
        stalled = self._listened_at - before - listening
        if stalled < STALL_SECONDS:
            return
        self._log.warning("manager_stalled", stalled_s=round(stalled, 3))
        self._host.pause(stalled)
        self._connection_limits.pause(stalled)

    def _attend(self, events: list[tuple[int, int]]) -> None:
        self._turns.attend(events, self._serve_descriptor)

    def _serve_descriptor(self, fd: int, mask: int) -> None:
        connection = self._connection_limits.connections.get(fd)
        if connection is not None:
            self._serve(connection, mask)
        elif fd == self._wake_read:
            self._run_calls()
        elif fd == self._listener.fileno():
            self._connections.accept()

    def _resume(self) -> None:
        """Read on from connections that were paused and may go on, until the turn's share is used up."""
        self._resumable = False
        paused = self._connections.paused
        if not paused:
            return
        self._turns.begin(BACKLOG_PART)
        for fd, connection in list(paused.items()):
            if connection.paused:
                continue
            paused[fd] = paused.pop(fd)  # to the end of the order
            self._serve(connection, 0)
            if self._turns.over:
                self._resumable = True
                return

    def _gather(self, started: float) -> None:
        """Serve the requests that come meanwhile, so that they share this turn's commit, if it syncs.

        Without this, the first client to answer after a commit would have the next commit alone, and the
        others would wait for it.
        """
        while self._host.has_to_sync and time.monotonic() < started + GATHER_SECONDS:
            self._host.hand_out()
            events = self._epoll.poll(0)
            if not events:
                return
            self._attend(events)

    def _serve(self, connection: Connection, mask: int) -> None:
        try:
            if mask & select.EPOLLOUT:
                connection.flush()
            self._hear(connection, mask)
        except PeerGone as gone:
            self._give_up(connection, gone)
        except Exception as error:
            if is_told(error):
                raise
            # The host raises its own faults as StateBroken. This fault is in the protocol code, so it ends
            # only this connection.
            self._log.error("message_not_handled", peer=connection.peer, error_type=type(error).__name__)
            self._connections.drop(connection, "a fault of the manager's own")
        else:
            self._connections.watch(connection)
            self._connections.note_buffered(connection)

    def _hear(self, connection: Connection, mask: int) -> None:
        """Handle the messages of a connection: first those that came while it was paused, then new ones.

        Raises:
            PeerGone: the connection has ended, or the peer has broken the rules.
        """
        if connection.paused:
            if mask & _GONE:
                raise PeerGone("closed by the peer")
            return
        if connection.fd in self._connections.paused:
            self._handle(connection, connection.left_over())
        if mask & ~select.EPOLLOUT:
            self._handle(connection, connection.receive())

    def _handle(self, connection: Connection, messages: Iterator[memoryview]) -> None:
        for message in messages:
            if len(message) >= LARGE_BYTES:
                self._connections.note_large()
            self._protocol.handle(connection, message)
            if self._turns.over and connection.work is None:
                self._turns.rest(connection)

    def _give_up(self, connection: Connection, gone: PeerGone) -> None:
        if isinstance(gone, TlsRefused):
            self._host.observer.counted("svc_manager_auth_failures_total")
            self._log.warning("connection_refused", peer=connection.peer, reason=str(gone))
        elif isinstance(gone, TooLarge):
            self._telling.refused_message(connection)
        self._connections.drop(connection, str(gone))

    def _run_calls(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        while self._calls:
            self._calls.popleft()()

    def _housekeeping(self, now: float) -> None:
        if now >= self._next_note:
            self._next_note = now + TIME_NOTED_SECONDS
            self._host.journal.note_time(self._host.clock.now())
        self._connections.tend(now)
        self.scarcity.look(self._host, now)

    # --- the end ------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Stop accepting connections; commit and answer the requests that have been read."""
        self._connections.stop_listening()
        try:
            self._turns.finish()
            self._run_calls()
            self._host.answer_reports()
            self._host.turn()
        except StateBroken as broken:
            self.recovery.discard(self._host, broken)

    def _close(self) -> None:
        self._connections.close()
        self._epoll.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
        self._host.close()
