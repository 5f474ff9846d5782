"""The connections of one client: one that submits in order, and some for waits.

The locks are reentrant, because a signal handler may use the client while its own thread holds them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from svc.broker.base import Broker
from svc.broker.forks import begin_anew_in_children
from svc.errors import BrokerError

#: Makes a connected broker.
Connect = Callable[[], Broker]
#: Threads of one client that can wait at the same time, each on a connection of its own.
WAITERS_MAX = 16


class AllWaiting(Exception):
    """The largest allowed number of this client's threads is waiting already."""


class Connections:
    """Brokers that are lent to the threads of one client; one thread at a time uses each.

    Connections are made when they are first needed and kept until `close`.
    """

    def __init__(self, connect: Connect, waiters: int = WAITERS_MAX) -> None:
        """Make no connection yet; at most *waiters* of them are for waits."""
        self._connect = connect
        self._waiters = waiters
        self._closed = False
        self.begin_anew()
        begin_anew_in_children(self)

    def begin_anew(self) -> None:
        """Start without connections; after a fork, brokers close the earlier ones, and the locks are new."""
        self._main: Broker | None = None
        self._main_lock = threading.RLock()
        self._main_lent = False
        self._idle: list[Broker] = []
        self._all: list[Broker] = []
        self._state_lock = threading.RLock()
        self._free = threading.BoundedSemaphore(self._waiters)

    @contextmanager
    def main(self) -> Iterator[Broker]:
        """Lend the connection for short calls; the calls are made in the order in which threads borrow it.

        If a signal handler interrupts its own thread in such a call, it gets a separate connection, because
        the answer to that call is still to come on the main one.
        """
        with self._main_lock:
            if self._main_lent:
                with self._apart() as broker:
                    yield broker
                return
            self._main_lent = True
            try:
                if self._main is None:
                    self._main = self._made()
                yield self._main
            finally:
                self._main_lent = False

    def is_main(self, broker: Broker) -> bool:
        """Return whether *broker* is the connection that `main` lends, unless to a signal handler."""
        return broker is self._main

    @contextmanager
    def waiting(self, seconds: float) -> Iterator[Broker]:
        """Lend a connection for a call that may wait.

        Raises:
            AllWaiting: none became free within *seconds*.
        """
        if not self._free.acquire(timeout=seconds):
            raise AllWaiting
        try:
            broker = self._taken()
            try:
                yield broker
            finally:
                with self._state_lock:
                    self._idle.append(broker)
        finally:
            self._free.release()

    def close(self) -> None:
        """Close all connections. May be called twice."""
        with self._state_lock:
            self._closed = True
            brokers, self._all, self._idle = self._all, [], []
        for broker in brokers:
            broker.close()

    @contextmanager
    def _apart(self) -> Iterator[Broker]:
        """Lend a connection that only this call uses."""
        broker = self._made()
        try:
            yield broker
        finally:
            with self._state_lock:
                self._all.remove(broker)
            broker.close()

    def _taken(self) -> Broker:
        with self._state_lock:
            if self._idle:
                return self._idle.pop()
        return self._made()

    def _made(self) -> Broker:
        if self._closed:
            raise BrokerError("this client is closed; make a new one")
        broker = self._connect()
        with self._state_lock:
            self._all.append(broker)
        return broker
