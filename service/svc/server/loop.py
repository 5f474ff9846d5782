"""The manager's event loop: one thread, every connection, one commit each turn.

Each turn reads the readable connections, applies every command to the queue, commits once, and then sends the
replies (`broker.host`). Handshakes are stages of a connection, not threads. A waiting `get` is an entry in
the host, which removes it if its socket closes.

No turn takes long, whatever is requested, and every connection is served. A turn has some milliseconds, of
which each kind of work gets a share. A request that takes longer goes on in later turns. Its connection is
not read meanwhile, so the order of its requests stays the same. Work for which there was no time comes first
in the next turn.
"""

from __future__ import annotations

import math
import select
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping

import structlog

from svc.broker.broken import passes_through
from svc.broker.host import QueueHost
from svc.domain.observer import Observer
from svc.server.connection import Connection, PeerGone
from svc.server.connections import HOUSEKEEPING_SECONDS, Connections
from svc.server.heap import LARGE_BYTES

#: From this many seconds without reading, as in a stopped process, leases and timeouts are extended by them.
STALL_SECONDS = 1.0
#: Seconds in a turn after which a commit does not wait for requests that still come.
GATHER_SECONDS = 0.002
#: Seconds of work in one turn, its commit not counted. The step that is under way at the end is finished.
TURN_SECONDS = 0.015
#: Shares of these: for requests that earlier turns left over, and for connections that were paused. The
#: commit of what they do takes as long.
BACKLOG_SHARE = 1 / 3
#: The share for the messages that have come.
MESSAGES_SHARE = 2 / 3
#: So many connections are served even if no time is left, unless they take longer than so many seconds.
_UNTIMED = 8
_UNTIMED_SECONDS = 0.002
#: Turns in a row in which those whose last request took long may be passed over, if their share is used up.
#: After twice as many, in which the whole turn was, they come first once.
PASSED_OVER_MAX = 4
#: A turn of more seconds is logged.
LONG_TURN_SECONDS = 0.05
#: Parts of a turn that take fewer seconds need not be noted as the possible cause of a long turn.
NOTED_SECONDS = 0.001
#: The events that tell that a peer has gone, while its connection is not read.
_GONE = select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP

Ready = tuple[int, int]  # a file descriptor and the events that are ready there


class Turns:
    """The time of a turn, the requests that are not done, and the connections that are to be served first."""

    def __init__(self) -> None:
        """Begin with nothing left over."""
        #: When the current share ends (by `time.perf_counter`); the rest is left to later turns.
        self.until = math.inf
        #: When the whole turn ends, likewise.
        self.end = math.inf
        self.began = 0.0
        self._unfinished: deque[Connection] = deque()
        #: The descriptors for which the turn before had no time.
        self._unserved: list[int] = []
        #: Descriptors on which the last thing that was served took long.
        self._slow: set[int] = set()
        #: Turns in a row in which there was no time for these.
        self._passed_over = 0
        #: The longest part of this turn: its seconds, its name and the role of the key that it was for.
        self._part = (0.0, "other", "none")
        #: The most seconds of processor time that a turn has taken.
        self._longest = 0.0
        self._processor = time.thread_time()
        self._log = structlog.get_logger("svc.manager")

    # --- time ---------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin a turn."""
        self.began = time.perf_counter()
        self.until = self.end = self.began + TURN_SECONDS

    def begin_share(self, share: float = 1.0) -> None:
        """Begin with another kind of work, which gets this *share* of the turn at most."""
        self.until = min(time.perf_counter() + share * TURN_SECONDS, self.end)

    @property
    def over(self) -> bool:
        """Whether the current share is used up."""
        return time.perf_counter() >= self.until

    @property
    def ended(self) -> bool:
        """Whether the whole turn is used up, so that other work has to wait for the next one."""
        return time.perf_counter() >= self.end

    def note_part(self, name: str, role: str, seconds: float) -> None:
        """Note the name, role and *seconds* of a part of this turn that took long."""
        if seconds > self._part[0]:
            self._part = seconds, name, role

    def finish_turn(self, observer: Observer) -> None:
        """Count a turn that is over, and log it if it was long."""
        seconds = time.perf_counter() - self.began
        observer.turned(seconds)
        before, self._processor = self._processor, time.thread_time()
        (_, part, role), self._part = self._part, (0.0, "other", "none")
        processor = self._processor - before
        if processor > self._longest:
            self._longest = processor
            observer.longest_turn(processor, part, role)
        if seconds > LONG_TURN_SECONDS:
            times = {"turn_s": round(seconds, 4), "processor_s": round(processor, 4)}
            self._log.warning("long_turn", **times, part=part, role=role)

    # --- requests that are not done -----------------------------------------------------------------

    @property
    def pending(self) -> bool:
        """Whether requests are left over from earlier turns."""
        return bool(self._unfinished)

    def defer(self, connection: Connection, work: Callable[[float], bool]) -> None:
        """Leave a request to later turns: they call *work* until it returns true, which means done."""
        connection.work = work
        self._unfinished.append(connection)

    def put_off(self, connection: Connection) -> None:
        """Leave the other messages of *connection* to the next turn."""
        self.defer(connection, lambda until: True)

    def go_on(self) -> None:
        """Continue the unfinished requests one after the other, until the share is used up."""
        for _ in range(len(self._unfinished)):
            connection = self._unfinished.popleft()
            if connection.work is None or connection.closed:
                continue
            if connection.work(self.until):
                connection.work = None
            else:
                self._unfinished.append(connection)
            if self.over:
                return

    def forget(self) -> None:
        """Drop all unfinished work, because its connections are closed."""
        self._unfinished.clear()
        self._unserved = []
        self._slow.clear()

    # --- connections that are ready -----------------------------------------------------------------

    def serve_all(self, events: list[Ready], serve: Callable[[int, int], None]) -> None:
        """Serve each of *events* until the share is used up.

        Those whose last request took long come last: an operator's ping must not wait for the lists of a
        hundred others. If no time is left for them, they are passed over a few times.
        """
        if self._unserved:
            ready = dict(events)
            first = [(fd, ready.pop(fd)) for fd in self._unserved if fd in ready]
            events = [*first, *ready.items()]
        late = [event for event in events if event[0] in self._slow] if self._slow else []
        if late:
            events = [event for event in events if event[0] not in self._slow]
        if self._passed_over >= 2 * PASSED_OVER_MAX:
            events, late, self._passed_over = [*late, *events], [], 0
        left = self._serve(events, serve)
        if late and self.over and (self.ended or self._passed_over < PASSED_OVER_MAX):
            self._passed_over += 1
            left += late
        elif late:
            self._passed_over = 0
            left += self._serve(late, serve)
        self._unserved = [fd for fd, _ in left]

    def _serve(self, events: list[Ready], serve: Callable[[int, int], None]) -> list[Ready]:
        """Serve *events*, the first few even without time if they take none; return the others."""
        began = time.perf_counter()
        enough = began + _UNTIMED_SECONDS
        for place, (fd, mask) in enumerate(events, 1):
            serve(fd, mask)
            at = time.perf_counter()
            if at - began > _UNTIMED_SECONDS:
                self._slow.add(fd)
            elif self._slow:
                self._slow.discard(fd)
            began = at
            if at >= self.until and (place >= _UNTIMED or at >= enough):
                return events[place:]
        return []


class Loop:
    """Runs turns: waits for events, serves them, commits, and does what is due."""

    def __init__(
        self,
        host: QueueHost,
        connections: Connections,
        turns: Turns,
        epoll: select.epoll,
        *,
        handle: Callable[[Connection, memoryview], None],
        readers: Mapping[int, Callable[[], None]],
        keep_house: Callable[[float], None],
    ) -> None:
        """Serve the queue of *host* on *connections*.

        Args:
            host: the queue.
            connections: all connections.
            turns: the time of each turn.
            epoll: the epoll object on which to wait.
            handle: handles a message of a connection.
            readers: functions by the other descriptors on which the loop waits; each reads from its own.
            keep_house: called twice a second with the time (monotonic).
        """
        self.connections = connections
        self.turns = turns
        self.stopping = False
        self._host = host
        self._handle_message = handle
        self._epoll = epoll
        self._readers = readers
        self._keep_house = keep_house
        self._next_housekeeping = 0.0
        #: The kinds of work of a turn, in their usual order and in that of the next turn. Those for which
        #: there was no time come first: so a turn takes one step longer than its time at most.
        self._kinds = (self._go_on, self._serve_events, self._serve_waiting, self._serve_owner, self._resume)
        self._order: tuple[Callable[[], None], ...] = self._kinds
        self._events: list[Ready] = []
        self._listened_at = time.monotonic()
        #: Whether the journal has more to do at once.
        self._maintaining = False
        self._log = structlog.get_logger("svc.manager")

    def run(self) -> None:
        """Serve turns until `stopping` is set, or until the host's clock is to be set.

        Raises:
            JournalError: a commit failed.
            StateBroken: the queue's state broke.
        """
        while not (self.stopping or self._host.clock_accepted):
            self.turn()

    def turn(self) -> None:
        """Wait for events, and serve one turn; see `run`."""
        self._events = events = self._wait()
        self.turns.begin()
        order, end, self._order = self._order, self.turns.end, self._kinds
        for place, kind in enumerate(order, 1):
            kind()
            if place < len(order) and time.perf_counter() >= end:
                self._order = (*order[place:], *order[:place])
                break
        self._commit()
        self._maintaining = self._host.maintain_journal(idle=not events)
        now = time.monotonic()
        self.connections.keep_time(now)
        if now >= self._next_housekeeping:
            self._next_housekeeping = now + HOUSEKEEPING_SECONDS
            self._keep_house(now)
        self.turns.finish_turn(self._host.observer)

    def _wait(self) -> list[Ready]:
        """Wait until there is work; return the descriptors that are ready, each with its events."""
        paused = self.connections.paused
        busy = self._maintaining or self.turns.pending or self._order is not self._kinds
        if busy or (paused and not all(each.paused for each in paused.values())):
            timeout = 0.0
        else:
            timeout = self.connections.seconds_to_next(self._host.seconds_to_next())
        self._allow_for_stall()
        events = self._epoll.poll(timeout)
        self._allow_for_stall(timeout)
        return events

    def _allow_for_stall(self, listening: float = 0.0) -> None:
        """Extend leases and timeouts after a long time without this call, *listening* seconds not counted."""
        before, self._listened_at = self._listened_at, time.monotonic()
        stalled = self._listened_at - before - listening
        if stalled >= STALL_SECONDS:
            self._log.warning("manager_stalled", stalled_s=round(stalled, 3))
            self._host.pause(stalled)
            self.connections.limits.pause(stalled)

    # --- the kinds of work --------------------------------------------------------------------------

    def _go_on(self) -> None:
        """Go on with the requests that earlier turns left over."""
        if self.turns.pending:
            self.turns.begin_share(BACKLOG_SHARE)
            self.turns.go_on()

    def _serve_events(self) -> None:
        """Serve the descriptors that are ready.

        If the commit syncs, also serve the requests that come meanwhile, so that they share it. Without
        this, the first client to answer after a commit would have the next commit alone, and the others
        would wait for it.
        """
        self.turns.begin_share(MESSAGES_SHARE)
        events = self._events
        while events:
            self.turns.serve_all(events, self._serve_descriptor)
            if not self._host.has_to_sync or time.perf_counter() >= self.turns.began + GATHER_SECONDS:
                return
            self._host.hand_out()
            events = self._epoll.poll(0)

    def _serve_waiting(self) -> None:
        """Answer the requests that have waited, and do the work of the queue that is due."""
        self._allow_for_stall()
        self._host.serve()

    def _serve_owner(self) -> None:
        """Go on with the requests of the manager's own HTTP server, and with the text of the metrics."""
        self._host.go_on(self.turns.end)

    def _resume(self) -> None:
        """Read on from connections that were paused and may go on, until the turn's share is used up."""
        paused = self.connections.paused
        if not paused:
            return
        self.turns.begin_share(BACKLOG_SHARE)
        for fd, connection in list(paused.items()):
            if connection.paused:
                continue
            paused[fd] = paused.pop(fd)  # to the end of the order
            self._serve(connection, 0)
            if self.turns.over:
                return

    def _commit(self) -> None:
        begun = time.perf_counter()
        for notice in self._host.end_turn():
            self.connections.peer_log.noticed(notice)
        if (seconds := time.perf_counter() - begun) > NOTED_SECONDS:
            self.turns.note_part("commit", "none", seconds)

    # --- one connection -----------------------------------------------------------------------------

    def _serve_descriptor(self, fd: int, mask: int) -> None:
        connection = self.connections.limits.connections.get(fd)
        if connection is not None:
            self._serve(connection, mask)
        elif fd in self._readers:
            self._readers[fd]()

    def _serve(self, connection: Connection, mask: int) -> None:
        try:
            if mask & select.EPOLLOUT:
                connection.flush()
            self._read(connection, mask)
        except PeerGone as gone:
            self.connections.give_up(connection, gone)
        except Exception as error:
            if passes_through(error):
                raise
            # The host raises its own faults as StateBroken. This fault is in the protocol code, so it ends
            # only this connection.
            self._log.error("message_not_handled", peer=connection.peer, error_type=type(error).__name__)
            self.connections.drop(connection, "a fault of the manager's own")
        else:
            self.connections.watch(connection)
            self.connections.note_buffered(connection)

    def _read(self, connection: Connection, mask: int) -> None:
        """Handle the messages of a connection: first those that came while it was paused, then new ones.

        Raises:
            PeerGone: the connection has ended, or the peer has broken the rules.
        """
        if connection.paused:
            if mask & _GONE:
                raise PeerGone("closed by the peer")
            return
        if connection.fd in self.connections.paused:
            self._handle(connection, connection.left_over())
        if mask & ~select.EPOLLOUT:
            self._handle(connection, connection.receive())

    def _handle(self, connection: Connection, messages: Iterator[memoryview]) -> None:
        for message in messages:
            if len(message) >= LARGE_BYTES:
                self.connections.note_large()
            self._handle_message(connection, message)
            if self.turns.over and connection.work is None:
                self.turns.put_off(connection)
