"""A request: the commands that one message brought, and the replies to them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.handlers import Room
from svc.domain.members import Member
from svc.domain.operations import RESULTS
from svc.domain.scheduling.lanes import Lanes

#: Seconds between two steps of an index of lanes if nothing else is to be done.
INDEX_SECONDS: Final = 0.002
#: Seconds that a request for jobs waits for an index of very many lanes, even if it does not wait for jobs.
PATIENCE_SECONDS: Final = 2.0

Deliver = Callable[[list[r.Reply]], None]


_NOTHING: Final = r.Grant()
_NOTHING_TAKEN: Final = r.Outcomes(0, [])


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


def lacks_index(lanes: Lanes, command: c.Command, member: Member, reply: r.Reply | None) -> bool:
    """Return whether *reply* has no job perhaps only because an index of *lanes* is not finished yet."""
    if type(command) is c.Take:
        return RESULTS in lanes.unfinished and reply == _NOTHING_TAKEN
    return member.subscription in lanes.unfinished and reply == _NOTHING


def patient(command: c.Command) -> c.Command:
    """Return the same command with time to wait until an index is finished."""
    return msgspec.structs.replace(command, wait=PATIENCE_SECONDS)


def impatient(command: c.Command) -> c.Command:
    """Return the same command with no time to wait."""
    return msgspec.structs.replace(command, wait=0.0)
