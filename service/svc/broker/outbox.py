"""The replies to deliver, and the early grants among them.

A reply waits for the commit of its turn, because it says that its request is recorded. An *early grant* does
not: it hands out jobs and confirms nothing, so it leaves before the commit, which then runs beside the first
job (decision 15). This module alone decides which grants are early, and when they leave.
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from svc.broker.waiting import Deliver
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.members import Member

_Deliveries: TypeAlias = list[tuple[Deliver, list[r.Reply]]]


class Outbox:
    """The replies that are not delivered yet."""

    def __init__(self) -> None:
        """Begin empty."""
        #: Replies that wait for this turn's commit.
        self._ready: _Deliveries = []
        #: Early grants. They may leave at any time.
        self._early: _Deliveries = []
        #: Early grants beside reports of this turn. They leave at its end: a consumer that got one sooner
        #: could send its next request in the same turn, and would take its reports as recorded.
        self._beside_reports: _Deliveries = []

    def __bool__(self) -> bool:
        """Return whether there are any replies."""
        return bool(self._ready or self._early or self._beside_reports)

    @property
    def tells(self) -> bool:
        """Whether a reply waits for the commit."""
        return bool(self._ready)

    def put(
        self,
        last: c.Command | None,
        replies: list[r.Reply],
        deliver: Deliver,
        member: Member,
        *,
        recorded: bool,
    ) -> None:
        """Keep *replies* for delivery before or after this turn's commit.

        A grant is early in three cases. All that came earlier on its connection is *recorded*, as the request
        has waited for a turn. Or it answers the only request of a plain client that waits for no other: the
        other answers of such a client are never early. Or *last*, the last command of the request, says that
        the consumer takes early grants; if it has reported outcomes with it, the grant is marked as early.
        """
        if not (replies and _hands_out(replies[-1])):
            self._ready.append((deliver, replies))
        elif recorded or (member.role == "plain" and member.outstanding == len(replies) == 1):
            self._early.append((deliver, replies))
        elif not (isinstance(last, c.Lease) and last.early):
            self._ready.append((deliver, replies))
        elif len(replies) == 1:
            self._early.append((deliver, replies))
        else:
            replies[-1] = msgspec.structs.replace(replies[-1], early=True)
            self._beside_reports.append((deliver, replies))

    def hand_out(self) -> None:
        """Deliver the early grants that need not wait for the end of the turn."""
        if self._early:
            early, self._early = self._early, []
            _deliver(early)

    def deliver_grants(self) -> None:
        """Deliver all early grants, at the end of the turn."""
        self.hand_out()
        if self._beside_reports:
            grants, self._beside_reports = self._beside_reports, []
            _deliver(grants)

    def deliver(self) -> None:
        """Deliver the replies that waited for the commit.

        A delivery may make its caller call again at once; replies that this adds are not delivered now.
        """
        if self._ready:
            ready, self._ready = self._ready, []
            _deliver(ready)


def _deliver(deliveries: _Deliveries) -> None:
    for deliver, replies in deliveries:
        deliver(replies)


def _hands_out(reply: r.Reply) -> bool:
    """Return whether a reply only hands out jobs; a pill is a change of state that has to be recorded."""
    return isinstance(reply, r.Grant) and bool(reply.deliveries) and not reply.pill
