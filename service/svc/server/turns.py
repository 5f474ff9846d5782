"""Shares the loop's time: no turn takes long, whatever is requested, and every connection is served.

A turn has a few milliseconds for each kind of work. A request that takes longer goes on in later turns. Its
connection is not read meanwhile, so the order of its requests stays the same. Connections for which there was
no time come first in the next turn.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

from svc.server.connection import Connection

#: So many connections are served even if no time is left, unless they take longer than so many seconds.
_UNTIMED = 8
_UNTIMED_SECONDS = 0.002
#: Turns in a row in which those whose last request took long may be passed over.
PASSED_OVER_MAX = 4
#: Seconds in one turn for each of these: what earlier turns left over, what has come anew, and what had come
#: on connections that were paused. The work that is under way when they are over is finished.
SHARE_SECONDS = 0.01
#: What old work, and connections that were paused, get of a share: the commit of what they do takes as long.
BACKLOG_PART = 0.5


class Turns:
    """The unfinished requests, the connections that are not yet read in this turn, and the time left."""

    def __init__(self) -> None:
        """Begin with nothing left over."""
        #: When the current share ends (by `time.perf_counter`); the rest is left to later turns.
        self.until = math.inf
        self._unfinished: deque[Connection] = deque()
        self._unheard: list[int] = []
        #: Descriptors on which the last thing that was served took long.
        self._slow: set[int] = set()
        #: Turns in a row in which there was no time for these.
        self._passed_over = 0

    @property
    def pending(self) -> bool:
        """Whether work is left over from earlier turns."""
        return bool(self._unfinished or self._unheard)

    @property
    def over(self) -> bool:
        """Whether the current share is used up."""
        return time.perf_counter() >= self.until

    def begin(self, part: float = 1.0) -> None:
        """Begin the next share of this turn, or a *part* of one."""
        self.until = time.perf_counter() + SHARE_SECONDS * part

    def defer(self, connection: Connection, work: Callable[[float], bool]) -> None:
        """Do *work* in later turns; do not read *connection* until *work* returns true, which means done."""
        connection.work = work
        self._unfinished.append(connection)

    def rest(self, connection: Connection) -> None:
        """Leave the other messages of *connection* to the next turn."""
        self.defer(connection, _nothing)

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

    def finish(self) -> None:
        """Do all unfinished work, however long it takes."""
        self.until = math.inf
        self.go_on()

    def forget(self) -> None:
        """Drop all unfinished work, because its connections are closed."""
        self._unfinished.clear()
        self._unheard = []
        self._slow.clear()

    def attend(self, events: list[tuple[int, int]], serve: Callable[[int, int], None]) -> None:
        """Serve each of *events*, a descriptor and what is ready there, until the share is used up.

        Those whose last request took long come last: an operator's ping must not wait for the lists of a
        hundred others. If no time is left, they are passed over a few times.
        """
        if self._unheard:
            events = self._unheard_first(events)
        late = [event for event in events if event[0] in self._slow]
        if late:
            events = [event for event in events if event[0] not in self._slow]
        left = self._serve(events, serve, _UNTIMED)
        if late and self.over and self._passed_over < PASSED_OVER_MAX:
            self._passed_over += 1
        else:
            self._passed_over = 0
            late = self._serve(late, serve, 1)
        self._unheard = [fd for fd, _ in (*left, *late)]

    def _serve(
        self, events: list[tuple[int, int]], serve: Callable[[int, int], None], untimed: int
    ) -> list[tuple[int, int]]:
        """Serve *events*, the first *untimed* if they take no time; return those for which there was none."""
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
            if at >= self.until and (place >= untimed or at >= enough):
                return events[place:]
        return []

    def _unheard_first(self, events: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return *events* with the connections first that the turn before had no time for."""
        ready = dict(events)
        first = [(fd, ready.pop(fd)) for fd in self._unheard if fd in ready]
        self._unheard = []
        return [*first, *ready.items()]


def _nothing(_until: float) -> bool:
    return True
