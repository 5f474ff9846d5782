"""A request: the commands that one message brought, and the replies to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.handlers import Room
from svc.domain.members import Member

Deliver = Callable[[list[r.Reply]], None]


class Request(msgspec.Struct, eq=False):
    """The commands of one request, and the replies to those that are applied; a long one takes many turns.

    Attributes:
        deliver: is called with the replies to all of them.
        room: the room that is left for the other replies.
    """

    commands: Sequence[c.Command]
    member: Member
    deliver: Deliver
    replies: list[r.Reply] = []
    room: Room = msgspec.field(default_factory=Room)


def impatient(command: c.Command) -> c.Command:
    """Return the same command with no time to wait."""
    return msgspec.structs.replace(command, wait=0.0)
