"""The engine without a network: the manager's queue in this process, behind a lock.

Tests and `svc.testing` use it as "the broker in memory". It runs the manager's own code, so both always
behave alike. Any number of `LocalBroker`s may share one `LocalQueue`, from any thread; each is one member.
"""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Callable, Iterator, Sequence

import msgspec

from svc.broker.base import Broker
from svc.broker.broken import StateBroken
from svc.broker.clock import ManagerClock
from svc.broker.host import QueueHost
from svc.broker.journal import Journal, MemoryJournal
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.limits import Limits
from svc.domain.members import Member
from svc.domain.observer import Observer
from svc.errors import ManagerBroken, ManagerUnreachable
from svc.wire import as_received


class LocalQueue:
    """A queue host that many threads may share."""

    def __init__(
        self,
        journal: Journal | None = None,
        *,
        clock: ManagerClock | None = None,
        limits: Limits | None = None,
        observer: Observer | None = None,
    ) -> None:
        """Recover the queue from *journal*, or start an empty one in memory."""
        self._changed = threading.Condition(threading.Lock())
        self._closed = False
        self._impatient: set[Member] = set()
        self._woken: set[Member] = set()
        # Its clock is never held: whoever runs it in his own process sees the time.
        self.host = QueueHost(
            journal or MemoryJournal(), clock=clock, limits=limits, observer=observer, max_clock_jump=math.inf
        )

    def call(self, commands: Sequence[c.Command], member: Member) -> list[r.Reply]:
        """Apply *commands*, and wait as long as they ask to.

        Raises:
            ManagerBroken: the queue's state broke; it is closed.
        """
        answer: list[list[r.Reply]] = []
        with self._changed, self._closed_if_broken():
            self._require_open()
            impatient = member in self._impatient or member in self._woken
            if impatient and commands and hasattr(commands[-1], "wait"):
                self._woken.discard(member)
                commands = [*commands[:-1], msgspec.structs.replace(commands[-1], wait=0.0)]
            self.host.call(commands, member, answer.append)
            self._turn()
            self._changed.notify_all()
            while not answer:
                pause = self.host.seconds_to_next()
                if pause:
                    self._changed.wait(pause)
                self._require_open()
                self._turn()
            if any(getattr(command, "wait", 0.0) for command in commands[-1:]):
                self._woken.discard(member)  # that has ended this call, or might as well have
        return answer[0]

    def _turn(self) -> None:
        self.host.turn()
        self.host.settle()

    def wake(self, member: Member, *, once: bool = False) -> None:
        """Answer the waiting request of *member* at once, and let no later one wait, or not the next one."""
        with self._changed, self._closed_if_broken():
            (self._woken if once else self._impatient).add(member)
            if not self._closed:
                self.host.wake(member)
                self._changed.notify_all()

    def close(self) -> None:
        """Close the journal; callers that wait get `ManagerUnreachable`."""
        with self._changed:
            if not self._closed:
                self._closed = True
                self.host.close()
                self._changed.notify_all()

    @contextlib.contextmanager
    def _closed_if_broken(self) -> Iterator[None]:
        try:
            yield
        except StateBroken as broken:
            self._closed = True
            self.host.discard()
            self.host.close()
            self._changed.notify_all()
            raise ManagerBroken(
                f"{broken}; this queue is closed, what it accepted is in its journal"
            ) from broken

    def _require_open(self) -> None:
        if self._closed:
            raise ManagerUnreachable("the local queue is closed")


class LocalBroker(Broker):
    """One member of a `LocalQueue`. If `hello` is given, it is sent at once."""

    def __init__(self, queue: LocalQueue, hello: Callable[[], c.Hello] | None = None) -> None:
        """Join *queue*."""
        self.queue = queue
        self.member = Member()
        self.queue.host.connected(self.member)
        limits = queue.host.limits
        self.welcome = r.Welcome(
            *(0, 0, "", 0.0, limits.max_job_bytes),
            largest_value=limits.max_value_bytes,
            piece_size=limits.piece_bytes,
        )
        if hello is not None:
            self.welcome = self._one(hello(), r.Welcome)

    def call(
        self,
        commands: Sequence[c.AnyCommand],
        *,
        wait: float = 0.0,  # noqa: ARG002  # no message can be lost, so the commands' own waits suffice
    ) -> list[r.AnyReply]:
        """See `Broker.call`.

        Raises:
            BadRequest: a field of a command is out of its bounds; nothing was changed.
        """
        return self.queue.call(as_received(commands), self.member)  # type: ignore[return-value]  # every Reply is an AnyReply

    def interrupt(self) -> None:
        """Let a call that waits in another thread return at once."""
        self.queue.wake(self.member)

    def wake(self, *told: c.Recall) -> None:  # noqa: ARG002 - the call that it ends has no way to go
        """See `Broker.wake`."""
        self.queue.wake(self.member, once=True)

    def close(self) -> None:
        """See `Broker.close`."""
        if self.member.role != "client" and self.member.connected:
            self.member.connected = False
            with contextlib.suppress(ManagerUnreachable):
                self.queue.call([c.Leave()], self.member)
