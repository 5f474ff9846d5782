"""The queue of a manager that has a standby: it serves only while it is sure that it leads.

The journal's fence keeps a manager that was deposed from writing. That does not keep it from granting jobs,
which its successor grants too. So a leader that cannot renew its key stops: it grants no jobs, renews no
leases and lets nothing expire, until it has renewed the key again or is deposed. Its clients wait meanwhile.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from svc.broker.host import QueueHost
from svc.broker.journal import Journal
from svc.broker.requests import Deliver, Request
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.handlers import Room
from svc.domain.members import Member
from svc.errors import Conflict, ManagerUnreachable

#: Seconds between two looks at the right to lead, while it is in doubt.
DOUBT_SECONDS = 0.1
#: Commands that are answered also by a manager that is not sure.
_HARMLESS = frozenset((c.Ping, c.Exposition))
_IN_DOUBT = "this manager is not sure that it leads: the servers of its journal do not answer; try again"


class LeadFacts(NamedTuple):
    """Facts about a leader that clients and operators are told.

    Attributes:
        address: the HOST:PORT at which it says that it serves.
        standbys: how many standbys it knows of that have caught up with the journal.
        silent: for how many seconds the servers of the journal have given it no answer; 0 if they do.
    """

    address: str = ""
    standbys: int = 0
    silent: float = 0.0


class LeadingHost(QueueHost):
    """A queue host that serves only while *leads* returns true."""

    def __init__(
        self,
        journal: Journal,
        *,
        leads: Callable[[], bool],
        leave: Callable[[], str] = lambda: "this manager has no standby",
        facts: Callable[[], LeadFacts] = LeadFacts,
        **options: Any,
    ) -> None:
        """Recover the queue from *journal*.

        Args:
            journal: the journal that this manager leads.
            leads: returns whether it is sure of that.
            leave: begins a hand-over and returns "", or returns why there can be none.
            facts: returns the facts about this leader.
            options: those of `QueueHost`.
        """
        self._leads = leads
        self._leave = leave
        self._facts = facts
        self._held: deque[Request] = deque()
        #: Since when it is not sure (monotonic); None while it is.
        self._unsure_since: float | None = None
        super().__init__(journal, **options)

    @property
    def unsure(self) -> bool:
        """Whether requests are held, as the manager is not sure that it leads."""
        if self._unsure_since is None and not self._leads():
            self._unsure_since = time.monotonic()
        return self._unsure_since is not None

    def proceed(self, request: Request, until: float = math.inf) -> bool:
        """Apply the remaining commands of a request, or hold it; see `QueueHost.proceed`."""
        if self.unsure and not _HARMLESS.issuperset(map(type, request.commands)):
            self._held.append(request)
            return True
        return super().proceed(request, until)

    def ask(self, commands: Sequence[c.Command], deliver: Deliver) -> None:
        """Have *commands* of the host's owner applied; refuse while it is not sure, see `QueueHost.ask`.

        They have no connection with whose end a held request goes: those of a poller would pile up.
        """
        if self.unsure and not _HARMLESS.issuperset(map(type, commands)):
            deliver([r.Refused(ManagerUnreachable.code, _IN_DOUBT)])
        else:
            super().ask(commands, deliver)

    def serve(self) -> None:
        """Do the work that is due, unless it is not sure; see `QueueHost.serve`."""
        if self.unsure:
            if not self._leads():
                return
            self._resume()
        super().serve()

    def _resume(self) -> None:
        """Go on after a time of doubt, in which no lease was renewed and none has expired."""
        since, self._unsure_since = self._unsure_since, None
        if since is not None:
            self.pause(time.monotonic() - since)
        held, self._held = self._held, deque()
        for request in held:
            self.proceed(request)

    def disconnected(self, member: Member) -> None:
        """Forget *member*, also the requests of it that are held; see `QueueHost.disconnected`."""
        self._held = deque(request for request in self._held if request.member is not member)
        super().disconnected(member)

    def _wake_ready(self) -> None:
        if not self.unsure:
            super()._wake_ready()

    def _apply(self, command: c.Command, member: Member, now: float, room: Room) -> r.Reply | None:
        if type(command) is c.Ping:
            return r.Done(int(self._facts().silent))
        return super()._apply(command, member, now, room)

    def completed(self, reply: r.Totals | r.Welcome) -> r.Reply:
        """Return a reply of the state with the facts about the leader, too; see `DurableState.completed`."""
        if isinstance(reply, r.Totals):
            address, standbys, _ = self._facts()
            reply = msgspec.structs.replace(reply, leader=address, standbys=standbys)
        return super().completed(reply)

    def hand_over(self) -> r.Reply:
        """Let a standby lead; see `DurableState.hand_over`."""
        refusal = self._leave()
        return r.Refused(Conflict.code, refusal) if refusal else r.Done()

    def seconds_to_next(self) -> float:
        """Return the seconds that the host may sleep; while it is in doubt, it looks again soon."""
        return DOUBT_SECONDS if self.unsure else super().seconds_to_next()
