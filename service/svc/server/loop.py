"""The manager's event loop: one thread, every connection, one commit each turn.

Each turn reads the readable connections, applies every command to the queue, commits once, and then sends the
replies (`broker.host`). Handshakes are stages of a connection. A waiting `get` is an entry in the host.

No turn takes long, whatever is requested, and every connection is served. A turn has some milliseconds, of
which each kind of work gets a share. A request that takes longer goes on in later turns. Its connection is
not read meanwhile, so its requests keep their order. Work for which there was no time comes first then.
"""

from __future__ import annotations

import math
import select
import time
from collections.abc import Callable, Iterable, Mapping

import structlog

from svc.broker.broken import passes_through
from svc.broker.host import QueueHost
from svc.domain.observer import Observer
from svc.server.backlog import Backlog
from svc.server.connection import Connection, PeerGone
from svc.server.connections import HOUSEKEEPING_SECONDS, Connections
from svc.server.heap import LARGE_BYTES

#: From this many seconds without reading, as in a stopped process, leases and timeouts are extended by them.
STALL_SECONDS = 1.0
#: Seconds of work in one turn, its commit not counted. The step that is under way at the end is finished.
#: After the second of them a commit does not wait for requests that still come.
TURN_SECONDS, GATHER_SECONDS = 0.015, 0.002
#: Shares of these: for requests that earlier turns left over, and for connections that were paused (the
#: commit of their changes takes as long); and for the messages that have come.
BACKLOG_SHARE, MESSAGES_SHARE = 1 / 3, 2 / 3
#: So many connections are served even if no time is left, unless they take longer than so many seconds.
_UNTIMED, _UNTIMED_SECONDS = 8, 0.002
#: Turns in a row in which those whose last request took long may be passed over, if their share is used up.
#: After twice as many, in which the whole turn was, they come first once.
PASSED_OVER_MAX = 4
#: Seconds between two looks at requests that are put off, as the journal is behind.
PUT_OFF_SECONDS = 0.01
#: A turn of more seconds is logged; the longest by itself, if its time is so many times that of the last one.
LONG_TURN_SECONDS, LONGER = 0.05, 1.25
#: Shorter parts are not noted as the cause of a long turn. The processor's clock is read as seldom.
NOTED_SECONDS = 0.001
#: Seconds between two looks at the journal and at handshakes while requests come all the time.
LOOK_SECONDS = 0.005
_NO_PART = (0.0, "other", "none")
#: The events that tell that a peer has gone, while its connection is not read.
_GONE = select.EPOLLHUP | select.EPOLLERR | select.EPOLLRDHUP
Ready = tuple[int, int]  # a file descriptor and the events that are ready there


class Turns(Backlog):
    """The time of a turn, the requests that are not done, and the connections that are to be served first."""

    def __init__(self) -> None:
        """Begin with nothing left over."""
        super().__init__()
        #: When the whole turn ends, likewise.
        self.end = math.inf
        self.began = 0.0
        #: The descriptors for which the turn before had no time.
        self._unserved: list[int] = []
        #: Descriptors on which the last thing that was served took long.
        self._slow: set[int] = set()
        #: Turns in a row in which there was no time for these.
        self._passed_over = 0
        #: The longest part of this turn: its seconds, its name and the role of the key that it was for.
        self._part = _NO_PART
        #: The most seconds of processor time that a turn has taken, and as the log was told.
        self._longest = self._longest_told = 0.0
        #: The processor time of the thread that serves turns when it was read last, and when that was.
        self.processor, self._read_at = 0.0, -math.inf
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
    def ended(self) -> bool:
        """Whether the whole turn is used up, so that other work has to wait for the next one."""
        return time.perf_counter() >= self.end

    def note_part(self, name: str, role: str, seconds: float) -> None:
        """Note the name, role and *seconds* of a part of this turn that took long."""
        if seconds > self._part[0]:
            self._part = seconds, name, role

    def finish_turn(self, observer: Observer) -> None:
        """Count a turn that is over, and log it if it was long.

        Short turns share a reading of the processor's clock, so the time of a turn is up to `NOTED_SECONDS`
        too long. It is never more than the turn took in all.
        """
        at = time.perf_counter()
        seconds = at - self.began
        observer.turned(seconds)
        if seconds <= self._longest and at < self._read_at + NOTED_SECONDS:
            return
        before, self.processor, self._read_at = self.processor, time.thread_time(), at
        (_, part, role), self._part = self._part, _NO_PART
        processor = min(self.processor - before, seconds)
        if processor > self._longest:
            self._longest = processor
            observer.longest_turn(processor, part, role)
        if seconds > LONG_TURN_SECONDS:
            log = self._log.bind(turn_s=round(seconds, 4), part=part, role=role)
            log = log.bind(processor_s=round(processor, 4))
            if processor > LONGER * self._longest_told:
                self._longest_told = processor
                log.warning("longest_turn")
            else:
                log.warning("long_turn")

    def forget(self) -> None:
        """Drop all unfinished work: its connections are closed."""
        self.unfinished.clear()
        self._unserved = []
        self._slow.clear()

    # --- connections that are ready -----------------------------------------------------------------

    def serve_all(self, events: list[Ready], serve: Callable[[int, int], None]) -> None:
        """Serve each of *events* until the share is used up.

        Those whose last request took long come last: an operator's ping must not wait for the lists of a
        hundred others. If no time is left for them, they are passed over a few times.
        """
        if len(events) == 1 and not (self._slow or self._unserved or self._passed_over):
            (fd, mask), began = events[0], time.perf_counter()
            serve(fd, mask)
            if time.perf_counter() - began > _UNTIMED_SECONDS:
                self._slow.add(fd)
            return
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
        if late and time.perf_counter() >= self.until and (self.ended or self._passed_over < PASSED_OVER_MAX):
            self._passed_over += 1
            left += late
        elif late:
            self._passed_over = 0
            left += self._serve(late, serve)
        self._unserved = [fd for fd, _ in left]

    def _serve(self, events: list[Ready], serve: Callable[[int, int], None]) -> list[Ready]:
        """Serve *events*, the first few even without time if they take none; return the others."""
        clock = time.perf_counter
        began = clock()
        enough = began + _UNTIMED_SECONDS
        for place, (fd, mask) in enumerate(events, 1):
            serve(fd, mask)
            at = clock()
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
        self._connected = connections.limits.connections
        self.turns = turns
        self.stopping = False
        self._host = host
        self._handle_message = handle
        self._epoll = epoll
        self._readers = readers
        self._keep_house = keep_house
        self._next_housekeeping = self._next_look = 0.0
        #: The kinds of work of a turn, in their usual order and in that of the next turn. Those for which
        #: there was no time come first: so a turn takes one step longer than its time at most.
        #: Each returns whether there was any, as a look at the clock costs more than one at nothing.
        self._kinds = (self._go_on, self._serve_events, self._serve_waiting, self._serve_owner, self._resume)
        self._order: tuple[Callable[[], bool], ...] = self._kinds
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
        self._listened()
        self.turns.processor = time.thread_time()  # this thread may be another than the one that made `turns`
        while not (self.stopping or self._host.clock_accepted):
            self.turn()

    def turn(self) -> None:
        """Wait for events, and serve one turn; see `run`."""
        self._events = events = self._wait()
        turns, host = self.turns, self._host
        turns.begin()
        if turns.unfinished or self._order is not self._kinds or self.connections.paused or host.has_own_work:
            self._serve_all_kinds()
        elif self._serve_events() and time.perf_counter() >= turns.end:
            self._order = (*self._kinds[2:], *self._kinds[:2])
        else:  # the usual case: there was nothing but messages
            host.serve()
        self._commit()
        now = self._listened()
        if now >= self._next_look or self._maintaining or not events:
            self._look(now, idle=not events)
        turns.finish_turn(host.observer)

    def _serve_all_kinds(self) -> None:
        order, end, self._order = self._order, self.turns.end, self._kinds
        clock, last = time.perf_counter, len(order)
        for place, kind in enumerate(order, 1):
            if kind() and clock() >= end and place < last:
                self._order = (*order[place:], *order[:place])
                break

    def _look(self, now: float, *, idle: bool) -> None:
        """Do what time alone makes due, and what the journal has postponed."""
        self._next_look = now + LOOK_SECONDS
        self._maintaining = self._host.maintain_journal(idle=idle)
        self.connections.keep_time(now)
        if now >= self._next_housekeeping:
            self._next_housekeeping = now + HOUSEKEEPING_SECONDS
            self._keep_house(now)

    def _wait(self) -> list[Ready]:
        """Wait until there is work; return the descriptors that are ready, each with its events."""
        paused = self.connections.paused
        busy = self._maintaining or self._order is not self._kinds or self.turns.unfinished
        if busy or (paused and not all(each.paused for each in paused.values())):
            timeout = PUT_OFF_SECONDS if self._host.behind else 0.0
        else:
            timeout = self.connections.seconds_to_next(self._host.seconds_to_next())
        events = self._epoll.poll(timeout)
        self._listened(timeout)
        return events

    def _listened(self, waited: float = 0.0) -> float:
        """Return the time; extend leases and timeouts if it is long since the last call.

        *waited* are the seconds since then that do not count.
        """
        before, now = self._listened_at, time.monotonic()
        self._listened_at = now
        if now - before - waited >= STALL_SECONDS:
            stalled = now - before - waited
            self._log.warning("manager_stalled", stalled_s=round(stalled, 3))
            self._host.pause(stalled)
            self.connections.limits.pause(stalled)
        return now

    # --- the kinds of work --------------------------------------------------------------------------

    def _go_on(self) -> bool:
        """Go on with the requests that earlier turns left over."""
        if not self.turns.unfinished:
            return False
        self.turns.begin_share(BACKLOG_SHARE)
        self.turns.go_on()
        return True

    def _serve_events(self) -> bool:
        """Serve the descriptors that are ready.

        If the commit syncs, also serve the requests that come meanwhile, so that they share it. Without
        this, the first client to answer after a commit would have the next commit alone, and the others
        would wait for it.
        """
        events = self._events
        if not events:
            return False
        self.turns.begin_share(MESSAGES_SHARE)
        while events:
            self.turns.serve_all(events, self._serve_descriptor)
            if not self._host.has_to_sync or time.perf_counter() >= self.turns.began + GATHER_SECONDS:
                break
            self._host.hand_out()
            events = self._epoll.poll(0)
        return True

    def _serve_waiting(self) -> bool:
        """Answer the requests that have waited, and do the work of the queue that is due."""
        self._host.serve()
        return True

    def _serve_owner(self) -> bool:
        """Go on with the requests of the manager's own HTTP server, and with the text of the metrics."""
        self._host.go_on(self.turns.end)
        return True

    def _resume(self) -> bool:
        """Read on from connections that were paused and may go on, until the turn's share is used up."""
        paused = self.connections.paused
        if not paused:
            return False
        self.turns.begin_share(BACKLOG_SHARE)
        for fd, connection in list(paused.items()):
            if connection.paused:
                continue
            paused[fd] = paused.pop(fd)  # to the end of the order
            self._serve(connection, 0)
            if self.turns.over:
                break
        return True

    def _commit(self) -> None:
        begun = time.perf_counter()
        for notice in self._host.end_turn():
            self.connections.peer_log.noticed(notice)
        if (seconds := time.perf_counter() - begun) > NOTED_SECONDS:
            self.turns.note_part("commit", "none", seconds)

    # --- one connection -----------------------------------------------------------------------------

    def _serve_descriptor(self, fd: int, mask: int) -> None:
        connection = self._connected.get(fd)
        if connection is not None:
            self._serve(connection, mask)
        elif fd in self._readers:
            self._readers[fd]()

    def _serve(self, connection: Connection, mask: int) -> None:
        paused = self.connections.paused
        try:
            if mask & select.EPOLLOUT:
                connection.flush()
            # First the messages that came while it was paused, then new ones.
            if paused and connection.fd in paused and not connection.paused:
                self._handle(connection, connection.left_over())
            if connection.paused:
                if mask & _GONE:
                    raise PeerGone("closed by the peer")  # noqa: TRY301  # as `receive` does
            elif mask & ~select.EPOLLOUT:
                self._handle(connection, connection.receive())
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

    def _handle(self, connection: Connection, messages: Iterable[memoryview]) -> None:
        for message in messages:
            if len(message) >= LARGE_BYTES:
                self.connections.note_large()
            self._handle_message(connection, message)
            if time.perf_counter() >= self.turns.until and connection.work is None:
                self.turns.put_off(connection)
