"""A peer of a simulation: a process that calls the manager over a line, which may break."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.members import LeaseRecord, Member

if TYPE_CHECKING:
    from tests.support.simulation import World


class Violation(AssertionError):
    """A promise was broken."""


class Line:
    """One connection, seen from both ends."""

    def __init__(self) -> None:
        self.member = Member()
        self.to_manager: deque[tuple[int, list[c.Command]]] = deque()
        self.to_peer: deque[tuple[int, list[r.Reply]]] = deque()
        #: The peer has gone; the manager notices that after the data that was sent before.
        self.given_up = False
        #: The manager has gone.
        self.broken = False

    def deliver(self, request: int) -> Callable[[list[r.Reply]], None]:
        """Count a request, and return the function that takes its replies."""
        self.member.outstanding += 1

        def answer(replies: list[r.Reply]) -> None:
            self.member.outstanding -= 1
            self.to_peer.append((request, replies))

        return answer


class Peer:
    """A process that calls the manager, and repeats a frame until it gets an answer."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.line: Line | None = None
        self.pending: list[c.Command] | None = None
        self.request = 0
        self.alive = True
        #: Whether the hello of this line has no answer yet.
        self.strange = False

    def hello(self) -> c.Hello | None:
        return c.Hello(1, "client")

    def step(self) -> None:
        line = self.line
        if line is None or (line.broken and not line.to_peer):
            self._connect()
        elif line.to_peer:
            self._read(*line.to_peer.popleft())
        elif self.pending is None and not self.strange:
            commands = self.act()
            if commands:
                self.pending = commands
                self._send()

    def act(self) -> list[c.Command]:
        """Return the next commands, if there are any."""
        return []

    def answered(self, commands: Sequence[c.Command], replies: Sequence[r.Reply]) -> None:
        """Handle the replies to *commands*."""

    def welcomed(self, welcome: r.Welcome) -> None:
        """Handle the answer to the hello."""

    def again(self) -> Sequence[c.Command]:
        """Return the commands to repeat on a new line, after the hello."""
        return ()

    def hands(self) -> Iterable[tuple[int, str]]:
        """Return the jobs that this peer knows to hold, each with its token."""
        return ()

    def give_up_line(self) -> None:
        if self.line is not None:
            self.line.given_up = True
            self.line = None

    def _connect(self) -> None:
        self.line = self.world.open()
        hello = self.hello()
        self.strange = hello is not None
        if hello is not None:
            self.line.to_manager.append((0, [hello, *self.again()]))
        elif self.pending is not None:
            self._send()

    def _send(self) -> None:
        if self.line is not None and self.pending is not None:
            self.request += 1
            self.line.to_manager.append((self.request, self.pending))

    def _read(self, request: int, replies: Sequence[r.Reply]) -> None:
        if request == 0:
            welcome = replies[0]
            if not isinstance(welcome, r.Welcome):
                raise Violation(f"{self.name} was not welcomed: {welcome}")
            self.strange = False
            self.welcomed(welcome)
            self._send()
        elif request == self.request and self.pending is not None:
            commands, self.pending = self.pending, None
            self.answered(commands, replies)


def jobs_of(lease: LeaseRecord) -> list[tuple[int, str]]:
    """Return the jobs of a lease, each with its token."""
    return [(lease.token, lease.chunk.id(index)) for index in range(lease.start, lease.stop)]
