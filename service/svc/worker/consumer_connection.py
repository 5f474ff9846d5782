"""The connection of a consumer to the manager: its hello, and the pauses while the manager is away."""

from __future__ import annotations

import errno
import os
import socket
import threading
import time

import structlog

from svc import codec
from svc.broker.backoff import Backoff
from svc.broker.base import Broker
from svc.domain.commands import Hello
from svc.wire import PROTOCOL_VERSION
from svc.worker.exchange import PASSING
from svc.worker.options import Connect, WorkerOptions
from svc.worker.outbox import Holdings
from svc.worker.registry import Registry

#: Seconds without an answer after which a consumer that stops with nothing to report gives up the manager.
_SILENT_SECONDS = 0.6


def check_descriptors() -> None:
    """Look whether this process can still connect, however well the manager is.

    Raises:
        OSError: it can open no descriptor (`errno.EMFILE`).
    """
    try:
        socket.socket().close()
    except OSError as error:
        if error.errno == errno.EMFILE:  # others are of the whole system, and may pass
            raise


class ConsumerConnection:
    """The connection of one consumer.

    Args:
        options: the settings of the worker.
        name: the consumer's name.
        registry: its tasks.
        holdings: the leases that it holds, which each hello names.
        connect: makes the connection.

    Attributes:
        broker: the connection; None before the first one.
        backoff: the pauses between attempts to reach the manager.
        code: the version of the code of its tasks; "" if there is none.
    """

    def __init__(
        self, options: WorkerOptions, name: str, registry: Registry, holdings: Holdings, connect: Connect
    ) -> None:
        self._options = options
        self._name = name
        self._registry = registry
        self._holdings = holdings
        self._connect = connect
        self._pid = os.getpid()
        self._log = structlog.get_logger().bind(worker=options.name, consumer=name)
        self.broker: Broker | None = None
        self.backoff = Backoff()
        self.code = ""
        #: Since when there is nothing to wait for but the end; None if there is.
        self._idle_since: float | None = None

    def hello(self) -> Hello:
        """Return the hello for a new connection, with the leases that this consumer holds."""
        return Hello(
            PROTOCOL_VERSION,
            "consumer",
            self._name,
            self._options.name,
            self._options.host,
            self._pid,
            self._registry.names(),
            list(self._options.queues),
            self._holdings.all(),
            release=self._options.release,
            life=self._options.life,
            accept=list(codec.accepted(self._options.accept)),
            code=self.code,
        )

    def made(self, stopping: threading.Event) -> Broker | None:
        """Return the connection, or None if a stop came before there was one."""
        while not stopping.is_set():
            try:
                self.broker = self.broker or self._connect(self.hello)
                self.broker.on_failure = check_descriptors
                self.broker.ping()  # the connection may be made at the first call only
            except PASSING as error:
                self.pause(stopping, error)
            else:
                return self.broker
        return None

    def pause(self, stopping: threading.Event, error: Exception) -> None:
        """Wait a little, longer each time, with jitter; a stop ends it. The supervisor warns."""
        stopping.wait(self._next_pause(error))

    def pause_reporting(self, stopping: threading.Event, error: Exception) -> None:
        """Do the same before another attempt to report; a stop that came before is no reason for haste."""
        pause = self._next_pause(error)
        if stopping.is_set():
            time.sleep(pause)
        else:
            stopping.wait(pause)

    def _next_pause(self, error: Exception) -> float:
        self._log.debug("manager_unreachable", manager=self._options.manager, error=str(error))
        return self.backoff.fail()

    def takes_reports(self) -> bool:
        """Return whether the manager takes reports of jobs that run."""
        return self.broker is not None and self.broker.welcome.checkpoint_bytes > 0

    def interrupt(self, *, idle: bool) -> None:
        """End a call that waits; to be called again and again until this consumer has left.

        If it is *idle*, with no job and nothing to report, a manager that is away is given up. What it may
        have granted meanwhile goes back when the supervisor reports the end of this process.
        """
        broker, now = self.broker, time.monotonic()
        self._idle_since = (self._idle_since or now) if idle else None
        if broker is None:
            return
        broker.interrupt()
        if self._idle_since is not None and (broker.trouble or now - self._idle_since > _SILENT_SECONDS):
            broker.give_up()
