"""Replies on their way out: after the commit of their turn, or, if they only hand out jobs, before it."""

from __future__ import annotations

import msgspec

from svc.broker.waiting import Deliver
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.members import Member


class Outbox:
    """The replies that nobody has got yet."""

    def __init__(self) -> None:
        """Hold none."""
        #: Replies that tell what this turn's commit makes true, and grants, which need not wait for it.
        self._ready: list[tuple[Deliver, list[r.Reply]]] = []
        self._granted: list[tuple[Deliver, list[r.Reply]]] = []

    def __bool__(self) -> bool:
        """Return whether there is any."""
        return bool(self._ready or self._granted)

    @property
    def tells(self) -> bool:
        """Whether one of them tells what the commit makes true."""
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
        """Let *replies* to a request, *last* its last command, go out, before this turn's commit or after it.

        Before it goes what hands out jobs and tells nothing that is not on record, or says so. If the request
        has waited for a turn, all that came on its connection before it is *recorded*; and so is all of a
        plain client, whose other answers are never early, that waits for this answer alone.
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
        """Deliver grants before the turn's end, to who is told by that only what is on record.

        Any other must not come again in the same turn: it would take its last report as recorded by then.
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
        """Deliver what the commit has made true.

        Delivering may make callers call again at once: only what was there is delivered.
        """
        if not self._ready:
            return
        ready, self._ready = self._ready, []
        for deliver, replies in ready:
            deliver(replies)


def _hands_out(reply: r.Reply) -> bool:
    """Return whether a reply hands out jobs and tells nothing else; a pill is a change of its own."""
    return isinstance(reply, r.Grant) and bool(reply.deliveries) and not reply.pill
