"""The manager's event loop: one thread, every connection, one commit each turn.

Each turn reads what is readable, applies every command to the queue, commits once, and then sends the
replies (`broker.host`). Handshakes are stages of a connection, not threads; a waiting `get` is an entry in
the host, so when its socket closes it is gone.
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

#: Seconds without listening, as in a stopped process, from which they are not counted against anybody.
STALL_SECONDS = 1.0
#: Seconds between two notes of what the clock shows, for the next start.
TIME_NOTED_SECONDS = 10.0
#: Seconds in a turn after which a commit does not wait for requests that still come.
GATHER_SECONDS = 0.002
#: Bytes in the write-ahead log at which it is checkpointed even under load, and when idle.
CHECKPOINT_BYTES = 8 * 1024 * 1024
CHECKPOINT_IDLE_BYTES = 1024 * 1024
#: What tells that a peer which is not read has gone.
_GONE = select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP

if TYPE_CHECKING:
    import ssl

T = TypeVar("T")


class Server(managers.Server):
    """The stdlib's manager server with another inside: same clients, no thread per connection.

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
            keys: who is let in, and to do what; or the one key that may do everything.
            min_free_bytes: free disk space below which new jobs are refused.
            bounds: what the network may cost.
            strict: let nobody in who answers the challenge with anything older than SHA-256.
            tls: what connections are secured with; None serves them plain.
            heap: what is told of large messages, if the process is the manager's own.
        """
        # Not the stdlib's __init__: it would open a listener of its own.
        self._host = host
        self._listener = listener
        #: What makes the queue refuse new jobs for a while.
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
        #: Whether a connection that was paused could be read again, but for the time.
        self._resumable = False
        #: Until when somebody was listened to (monotonic).
        self._listened_at = 0.0
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._calls: deque[Callable[[], None]] = deque()
        self._stopping = False
        self._copying = False
        self._next_housekeeping = 0.0
        self._next_note = 0.0
        #: What is done if the queue's state breaks; may be replaced by one that leaves reports.
        self.recovery = Recovery()
        self._log = structlog.get_logger("svc.manager")

    # --- life ---------------------------------------------------------------------------------------

    def serve_forever(self) -> None:
        """Serve until `stop`; then finish the commit in flight, answer it, and close everything.

        Raises:
            JournalError: a commit failed; nothing after the last successful one was acknowledged.
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
        # A full pipe wakes the loop just as well, and one that is closed already need not be woken.
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
        """How many connections are open, those in their handshake included."""
        return len(self._connection_limits.connections)

    def renew(self, keys: KeyRing, tls: ssl.SSLContext | None) -> None:
        """Let in who knows one of *keys* from now on, and end the connections of keys that are none any more.

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
        # Only here, after the handler, does nothing hold the old state any more by the exception's frames.
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
        self._copying = self._host.journal.copy_slice()
        now = time.monotonic()
        self._connections.keep_time(now)
        if now >= self._next_housekeeping:
            self._next_housekeeping = now + HOUSEKEEPING_SECONDS
            self._housekeeping(now)
        self._checkpoint(idle=not events)
        self._telling.turned(time.monotonic() - started)

    def _wait(self) -> list[tuple[int, int]]:
        """Wait until something is to be done; return what is ready."""
        busy = self._copying or self._resumable or self._turns.pending
        timeout = 0.0 if busy else self._connections.seconds_to_next(self._host.seconds_to_next())
        self._allow_for_stall()
        events = self._epoll.poll(timeout)
        self._allow_for_stall(timeout)
        return events

    def _allow_for_stall(self, listening: float = 0.0) -> None:
        """Count no time against anybody in which nobody was listened to, if it was long.

        Args:
            listening: seconds since the last time that this was asked in which somebody was, at most.
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
        """Read on from connections that were paused and may go on, as far as the time allows."""
        self._resumable = False
        paused = self._connections.paused
        if not paused:
            return
        self._turns.begin(BACKLOG_PART)
        for fd, connection in list(paused.items()):
            if connection.paused:
                continue
            paused[fd] = paused.pop(fd)  # behind those that are passed over
            self._serve(connection, 0)
            if self._turns.over:
                self._resumable = True
                return

    def _gather(self, started: float) -> None:
        """Let requests that come while others are served share the commit that is due, where it syncs.

        Without this, who is quickest to answer after a commit has the next one alone, and the others wait.
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
            # The host tells of its own faults: this one is in how we talk, and costs nobody else anything.
            self._log.error("message_not_handled", peer=connection.peer, error_type=type(error).__name__)
            self._connections.drop(connection, "a fault of the manager's own")
        else:
            self._connections.watch(connection)
            self._connections.note_buffered(connection)

    def _hear(self, connection: Connection, mask: int) -> None:
        """Handle what a connection has sent: first what came while it was paused, then what is new.

        Raises:
            PeerGone: it has ended, or broken the rules.
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
            self._host.observer.authentication_failed()
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
        self._host.journal.reserve()
        if now >= self._next_note:
            self._next_note = now + TIME_NOTED_SECONDS
            self._host.journal.note_time(self._host.clock.now())
        self._connections.tend(now)
        self.scarcity.look(self._host, now)

    def _checkpoint(self, *, idle: bool) -> None:
        waiting = self._host.journal.wal_bytes()
        if waiting > (CHECKPOINT_IDLE_BYTES if idle else CHECKPOINT_BYTES):
            self._host.journal.checkpoint()

    # --- the end ------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Close the door, commit and answer what has been read."""
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
