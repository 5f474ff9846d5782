"""A request while it is served; a long one takes several turns."""

from __future__ import annotations

from collections.abc import Sequence

from svc.broker.waiting import Deliver
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.members import Member
from svc.domain.room import Room

#: Commands of a request that are applied before the time is checked; most requests have fewer.
UNTIMED_COMMANDS = 4
#: Seconds after which the time is checked nevertheless: a single submit of many chunks takes longer.
UNTIMED_SECONDS = 0.002


class Request:
    """The commands of one request, and the replies to those that are applied."""

    __slots__ = ("commands", "deliver", "member", "replies", "room")

    def __init__(self, commands: Sequence[c.Command], member: Member, deliver: Deliver) -> None:
        """Hold *commands* of *member*, of which none is applied yet."""
        self.commands = commands
        self.member = member
        self.deliver = deliver
        self.replies: list[r.Reply] = []
        #: The room that is left for the other replies.
        self.room = Room()
