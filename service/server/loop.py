"""The manager's event loop: one thread, every connection, one commit each turn.

Each turn reads what is readable, applies every command to the queue, commits once, and then sends the
replies (`broker.host`). Handshakes are stages of a connection, not threads; a waiting `get` is an entry in
the host, so when its socket closes it is gone.
"""

from __future__ import annotations

import contextlib
import errno
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

from service.broker.broken import StateBroken, is_told
from service.broker.host import QueueHost
from service.errors import ManagerBroken
from service.server.connection import Connection, PeerGone, TlsRefused, TooLarge
from service.server.dialogue import SERVER_METHODS, Dialogue
from service.server.door import Bounds, Door
from service.server.heap import LARGE_BYTES, Heap
from service.server.keys import KeyRing
from service.server.recovery import Recovery
from service.server.scarcity import Scarcity
from service.server.telling import Telling
from service.server.turns import Turns

#: Seconds without listening, as in a stopped process, from which they are not counted against anybody.
STALL_SECONDS = 1.0
#: Connections that are accepted in one turn at most: so few that in a wave of them, whoever answers at once
#: is heard before the others have pushed it out.
ACCEPTS_MAX = 8
#: Seconds in a turn after which a commit does not wait for requests that still come.
GATHER_SECONDS = 0.002
#: Looks at the buffers in the time in which they fill up.
BUFFER_LOOKS = 8
#: Seconds between two looks at slow readers, full buffers, and free space on disk and in memory.
HOUSEKEEPING_SECONDS = 0.5
#: Bytes in the write-ahead log at which it is checkpointed even under load, and when idle.
CHECKPOINT_BYTES = 8 * 1024 * 1024
CHECKPOINT_IDLE_BYTES = 1024 * 1024
#: What tells that a peer which is not read has gone.
_GONE = select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP
#: Seconds for which accepting pauses when the process has no descriptor left.
ACCEPT_PAUSE_SECONDS = 0.05

if TYPE_CHECKING:
    import ssl

T = TypeVar("T")


class Server(managers.Server):
    """The stdlib's manager server with another inside: same clients, no thread per connection.

    `service.server.manager.JobManager.get_server` makes it. The stdlib's `shutdown`, `debug_info`,
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
            heap: what is told of large messages, where the process is the manager's own.
        """
        # Not the stdlib's __init__: it would open a listener of its own.
        self._host = host
        self._listener = listener
        #: What makes the queue refuse new jobs for a while.
        self.scarcity = Scarcity(min_free_bytes)
        self._tls = tls
        #: Host and port that are served.
        self.endpoint: tuple[str, int] = listener.getsockname()[:2]
        self.address = self.endpoint
        ring = KeyRing.of_authkey(keys) if isinstance(keys, bytes) else keys
        self._turns = Turns()
        self._telling = Telling(host.observer)
        self._dialogue = Dialogue(host, ring, self, strict=strict, turns=self._turns, telling=self._telling)
        self._door = Door(bounds or Bounds(), len(ring))
        #: Connections that are not read for now.
        self._paused: dict[int, Connection] = {}
        #: Whether one of them could be read again, but for the time.
        self._resumable = False
        #: Until when somebody was listened to (monotonic).
        self._listened_at = 0.0
        self._epoll = select.epoll()
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._calls: deque[Callable[[], None]] = deque()
        self._stopping = False
        self._accept_after = 0.0
        self._copying = False
        self._next_housekeeping = 0.0
        #: Bytes that may wait beside those of the last look.
        self._unchecked = 0
        self._heap = heap
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
        self._listener.setblocking(False)
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)
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
        return len(self._door.connections)

    def renew(self, keys: KeyRing, tls: ssl.SSLContext | None) -> None:
        """Let in who knows one of *keys* from now on, and end the connections of keys that are none any more.

        Only for the loop's own thread: see `ask`.
        """
        self._dialogue.keys, self._tls, self._door.keys = keys, tls, len(keys)
        for connection in list(self._door.connections.values()):
            if connection.key is not None and connection.key not in keys:
                self.drop(connection, "its key is not active any more")
        self._log.info("keys_read", keys=len(keys))

    # --- one turn -----------------------------------------------------------------------------------

    def _turn_or_recover(self) -> None:
        """Serve a turn; if the queue's state breaks in it, close every connection and recover in place."""
        try:
            self._turn()
        except StateBroken as broken:
            self.recovery.discard(self._host, broken)
        else:
            return
        # Only here, after the handler, does nothing hold the old state any more by the exception's frames.
        for connection in list(self._door.connections.values()):
            self._part_from(connection)
        self._turns.forget()
        self.recovery.recover(self._host)
        self._dialogue.begin_anew()

    def _turn(self) -> None:
        events = self._wait()
        started = time.monotonic()
        self._turns.begin()
        self._turns.go_on()
        self._turns.begin()
        self._attend(events)
        self._gather(started)
        self._allow_for_stall()
        begun = time.perf_counter()
        for notice in self._host.turn():
            self._telling.noticed(notice)
        self._telling.worked("commit", "none", time.perf_counter() - begun)
        self._resume()
        self._copying = self._host.journal.copy_slice()
        now = time.monotonic()
        self._keep_time(now)
        if now >= self._next_housekeeping:
            self._next_housekeeping = now + HOUSEKEEPING_SECONDS
            self._housekeeping(now)
        self._checkpoint(idle=not events)
        self._telling.turned(time.monotonic() - started)

    def _wait(self) -> list[tuple[int, int]]:
        """Wait until something is to be done; return what is ready."""
        timeout = self._timeout()
        self._allow_for_stall()
        events = self._epoll.poll(timeout)
        self._allow_for_stall(timeout)
        return events

    def _allow_for_stall(self, listening: float = 0.0) -> None:
        """Count no time against anybody in which nobody was listened to, if it was long.

        Args:
            listening: seconds since the last time that this was asked in which somebody was, at most.
        """
        now = time.monotonic()
        stalled = now - self._listened_at - listening
        self._listened_at = now
        if stalled >= STALL_SECONDS:
            self._log.warning("manager_stalled", stalled_s=round(stalled, 3))
            self._host.pause(stalled)
            self._door.pause(stalled)

    def _attend(self, events: list[tuple[int, int]]) -> None:
        self._turns.attend(events, self._serve_descriptor)

    def _serve_descriptor(self, fd: int, mask: int) -> None:
        connection = self._door.connections.get(fd)
        if connection is not None:
            self._serve(connection, mask)
        elif fd == self._wake_read:
            self._run_calls()
        elif fd == self._listener.fileno():
            self._accept()

    def _resume(self) -> None:
        """Read on where that was paused and may go on, as far as the time allows."""
        self._resumable = False
        self._turns.begin()
        for fd, connection in list(self._paused.items()):
            if connection.paused:
                continue
            self._paused[fd] = self._paused.pop(fd)  # behind those that are passed over
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

    def _timeout(self) -> float:
        if self._copying or self._resumable or self._turns.pending:
            return 0.0
        until = self._host.seconds_to_next()
        if (deadline := self._door.next_deadline()) is not None:
            until = min(until, deadline - time.monotonic())
        if self._accept_after:
            until = min(until, self._accept_after - time.monotonic())
        if self._paused:
            until = min(until, HOUSEKEEPING_SECONDS)
        return max(0.0, until)

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
            self.drop(connection, "a fault of the manager's own")
        else:
            self._watch(connection)
            self._note_buffered(connection)

    def _hear(self, connection: Connection, mask: int) -> None:
        """Handle what a connection has sent: first what came while it was paused, then what is new.

        Raises:
            PeerGone: it has ended, or broken the rules.
        """
        if connection.paused:
            if mask & _GONE:
                raise PeerGone("closed by the peer")
            return
        if connection.fd in self._paused:
            self._handle(connection, connection.left_over())
        if mask & ~select.EPOLLOUT:
            self._handle(connection, connection.receive())

    def _handle(self, connection: Connection, messages: Iterator[memoryview]) -> None:
        for message in messages:
            if len(message) >= LARGE_BYTES:
                self._note_large()
            self._dialogue.handle(connection, message)
            if self._turns.over and connection.work is None:
                self._turns.rest(connection)

    def _note_large(self) -> None:
        if self._heap is not None:
            self._heap.passes(time.monotonic())

    def _give_up(self, connection: Connection, gone: PeerGone) -> None:
        if isinstance(gone, TlsRefused):
            self._host.observer.authentication_failed()
            self._log.warning("connection_refused", peer=connection.peer, reason=str(gone))
        elif isinstance(gone, TooLarge):
            self._telling.refused_message(connection)
        self.drop(connection, str(gone))

    def _run_calls(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        while self._calls:
            self._calls.popleft()()

    def _keep_time(self, now: float) -> None:
        """Do what has a moment of its own."""
        for connection in self._door.overdue(now):
            self.drop(connection, "the handshake took too long")
        if self._accept_after and now >= self._accept_after:
            self._accept_after = 0.0
            self._epoll.modify(self._listener.fileno(), select.EPOLLIN)

    def _housekeeping(self, now: float) -> None:
        self._host.journal.reserve()
        if self._heap is not None:
            self._heap.tidy(now)
        bounds = self._door.bounds
        for connection in list(self._paused.values()):
            allowed = bounds.stalled_seconds + connection.unread / bounds.trickle
            if connection.wants_to_write and now - connection.waiting_since > allowed:
                self._cut_off(connection, f"{connection.unread} bytes wait for a peer that does not read")
        self._bound_buffers()
        self.scarcity.look(self._host, now)

    def _bound_buffers(self) -> None:
        """Cut off connections until no more bytes wait than may."""
        self._unchecked = 0
        while hoarder := self._door.hoarder():
            self._cut_off(hoarder, f"it had the most of too many bytes that wait: {hoarder.buffered}")

    def _note_buffered(self, connection: Connection) -> None:
        """Look at the buffers again once so much more may wait that it matters."""
        self._unchecked += connection.buffered
        if self._unchecked >= self._door.bounds.buffered_bytes // BUFFER_LOOKS:
            self._bound_buffers()

    def _checkpoint(self, *, idle: bool) -> None:
        waiting = self._host.journal.wal_bytes()
        if waiting > (CHECKPOINT_IDLE_BYTES if idle else CHECKPOINT_BYTES):
            self._host.journal.checkpoint()

    # --- connections --------------------------------------------------------------------------------

    def _accept(self) -> None:
        for _ in range(ACCEPTS_MAX):
            try:
                sock, address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    # Without a descriptor the listener would stay readable and the loop would spin.
                    self._accept_after = time.monotonic() + ACCEPT_PAUSE_SECONDS
                    self._epoll.modify(self._listener.fileno(), 0)
                    self._log.error("accept_paused", error=str(error))
                return
            self._admit(sock, address[:2])

    def _admit(self, sock: socket.socket, address: tuple[str, int]) -> None:
        refusal = self._door.refusal(address[0])
        if refusal:
            self._telling.refused_connection(f"{address[0]}:{address[1]}", refusal)
            sock.close()
            return
        try:
            connection = Connection(sock, address, self._tls)
        except OSError:
            sock.close()
            return
        self._host.state.arrived(connection.member)
        connection.mask = select.EPOLLIN
        self._epoll.register(connection.fd, connection.mask)
        if evicted := self._door.enter(connection):
            self.drop(evicted, "too many half-open connections")
        try:
            connection.start()
        except PeerGone as gone:
            self.drop(connection, str(gone))

    def drop(self, connection: Connection, reason: str) -> None:
        """End a connection; what its member holds is dealt with by the host."""
        if connection.closed:
            return
        if self._part_from(connection):
            self._host.disconnected(connection.member)
        if reason != "done":
            self._log.debug("connection_closed", peer=connection.peer, reason=reason)

    def _part_from(self, connection: Connection) -> bool:
        """Close a connection and forget it; return whether it had come through its handshake."""
        self._paused.pop(connection.fd, None)
        was_open = self._door.leave(connection)
        if was_open:
            self._host.observer.connected(-1)
        self._epoll.unregister(connection.fd)
        connection.close()
        return was_open

    def _cut_off(self, connection: Connection, reason: str) -> None:
        self._log.warning("connection_cut_off", peer=connection.peer, reason=reason)
        self.drop(connection, reason)

    def opened(self, connection: Connection) -> str:
        """Give a place to a peer that has proved to know a key; return why there is none, or nothing."""
        refusal = self._door.opened(connection)
        if refusal:
            self._telling.refused_connection(connection.peer, refusal, str(connection.role))
        else:
            self._host.observer.connected(+1)
        return refusal

    def _watch(self, connection: Connection) -> None:
        """Wait for what the connection needs next, or end it where all is said."""
        if connection.mask == select.EPOLLIN and not (connection.paused or connection.closing):
            return  # as it mostly is
        if connection.closed:
            return
        if connection.closing and not connection.wants_to_write:
            self.drop(connection, "done")
            return
        if connection.paused:
            # Reading goes on when the answers are taken: what a peer can make us hold is bounded.
            self._paused[connection.fd] = connection
            mask = select.EPOLLRDHUP | (select.EPOLLOUT if connection.wants_to_write else 0)
        else:
            self._paused.pop(connection.fd, None)
            mask = select.EPOLLIN
        if mask != connection.mask:
            connection.mask = mask
            self._epoll.modify(connection.fd, mask)

    def send(self, connection: Connection, message: bytes | bytearray) -> None:
        """Send a whole message, header included; a connection that is gone is passed over."""
        if connection.closed:
            return
        if len(message) >= LARGE_BYTES:
            self._note_large()
        try:
            connection.send(message)
        except PeerGone as gone:
            self.drop(connection, str(gone))
        else:
            if connection.wants_to_write or connection.closing:
                self._watch(connection)
                self._note_buffered(connection)

    # --- the end ------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """Close the door, commit and answer what has been read."""
        self._epoll.unregister(self._listener.fileno())
        self._listener.close()
        try:
            self._turns.finish()
            self._run_calls()
            self._host.answer_reports()
            self._host.turn()
        except StateBroken as broken:
            self.recovery.discard(self._host, broken)

    def _close(self) -> None:
        for connection in list(self._door.connections.values()):
            connection.close()
        self._door.connections.clear()
        self._listener.close()
        self._epoll.close()
        os.close(self._wake_read)
        os.close(self._wake_write)
        self._host.close()
