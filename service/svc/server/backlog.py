"""The requests for which earlier turns of the manager's loop had no time."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable

from svc.server.connection import Connection


class Backlog:
    """The connections with such a request, the oldest first; each is not read until its request is done."""

    def __init__(self) -> None:
        """Begin with none."""
        #: When the current share of the turn ends (by `time.perf_counter`); the rest is left to later turns.
        self.until = math.inf
        #: The connections whose requests are not done.
        self.unfinished: deque[Connection] = deque()

    @property
    def over(self) -> bool:
        """Whether the current share is used up."""
        return time.perf_counter() >= self.until

    def defer(self, connection: Connection, work: Callable[[float], bool]) -> None:
        """Leave a request to later turns: they call *work* until it returns true, which means done."""
        connection.work = work
        self.unfinished.append(connection)

    def put_off(self, connection: Connection) -> None:
        """Leave the other messages of *connection* to the next turn."""
        self.defer(connection, lambda until: True)

    def go_on(self) -> None:
        """Continue the unfinished requests one after the other, until the share is used up."""
        for _ in range(len(self.unfinished)):
            connection = self.unfinished.popleft()
            if connection.work is None or connection.closed:
                continue
            if connection.work(self.until):
                connection.work = None
            else:
                self.unfinished.append(connection)
            if self.over:
                return
