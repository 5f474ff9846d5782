"""Replies to deliver: after the commit of their turn, or before it if they only hand out jobs."""

from __future__ import annotations

import msgspec

from svc.broker.waiting import Deliver
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.members import Member


class Outbox:
    """The replies that are not delivered yet."""

    def __init__(self) -> None:
        """Begin empty."""
        #: Replies that have to wait for this turn's commit.
        self._ready: list[tuple[Deliver, list[r.Reply]]] = []
        #: Grants, which need not wait for it.
        self._granted: list[tuple[Deliver, list[r.Reply]]] = []

    def __bool__(self) -> bool:
        """Return whether there are any replies."""
        return bool(self._ready or self._granted)

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

        Replies that hand out jobs are delivered before the commit, if they confirm nothing that is not yet
        recorded or if the client accepts early grants. In the second case the grant is marked as early. The
        last command of the request, *last*, tells whether the client accepts them. If the request has waited
        for a turn, everything earlier on its connection is *recorded*. The same holds for a plain client that
        waits for this answer only, since its other answers are never early.
        """
        if not (replies and _hands_out(replies[-1])):
            self._ready.append((deliver, replies))
            return
        alone = member.role == "plain" and member.outstanding == len(replies) == 1
        recorded = recorded or alone
        if not (recorded or (isinstance(last, c.Lease) and last.early)):
            self._ready.append((deliver, replies))
            return
        if len(replies) > 1 and not recorded:
            replies[-1] = msgspec.structs.replace(replies[-1], early=True)
        self._granted.append((deliver, replies))

    def hand_out(self) -> None:
        """Deliver the grants that are not early, before the turn's end.

        Early grants stay until the end of the turn: a consumer that got one could send its next request in
        the same turn, and would take its last report as recorded.
        """
        granted, self._granted = self._granted, []
        for deliver, replies in granted:
            grant = replies[-1]
            if isinstance(grant, r.Grant) and grant.early:
                self._granted.append((deliver, replies))
            else:
                deliver(replies)

    def deliver_grants(self) -> None:
        """Deliver all grants."""
        if not self._granted:
            return
        granted, self._granted = self._granted, []
        for deliver, replies in granted:
            deliver(replies)

    def deliver(self) -> None:
        """Deliver the replies that waited for the commit.

        A delivery may make its caller call again at once; replies that this adds are not delivered now.
        """
        if not self._ready:
            return
        ready, self._ready = self._ready, []
        for deliver, replies in ready:
            deliver(replies)


def _hands_out(reply: r.Reply) -> bool:
    """Return whether a reply only hands out jobs; a pill is a change of state that has to be recorded."""
    return isinstance(reply, r.Grant) and bool(reply.deliveries) and not reply.pill
