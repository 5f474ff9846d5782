"""The single entry point of the queue: hands every command to its handler."""

from __future__ import annotations

from svc.domain import admission, operations, outcomes, queries, settlement
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.handlers import HANDLERS, READERS
from svc.domain.members import Member
from svc.domain.queue_state import QueueState
from svc.domain.room import REPLY_BYTES, REPLY_WORK, Room
from svc.domain.scheduling import grants

__all__ = ["HANDLERS", "HANDLER_MODULES", "READERS", "apply", "charge"]

#: The modules that have handlers; to import them fills the tables.
HANDLER_MODULES = (admission, grants, operations, outcomes, queries, settlement)
#: The answer to a reading command if the answers to its request are already too long.
USED_UP = r.Refused(
    "bad_request", "the answers to this request are too large together; ask for less at a time"
)


def charge(room: Room, reply: r.Reply) -> None:
    """Take from *room* the bytes of the jobs that *reply* hands out."""
    if isinstance(reply, r.Grant):
        room.take(sum(sum(map(len, each.bodies)) for each in reply.deliveries))


def apply(
    state: QueueState, command: c.Command, member: Member, now: float, room: Room | None = None
) -> r.Reply | None:
    """Carry out *command* for *member* at time *now* (Unix time, seconds).

    *room* limits the answers to the request that the command came with; at first it is whole.

    Returns the reply, or None if the command may wait and has no answer yet. The host asks again once
    `state.readied` or `state.progressed` reports progress.
    """
    kind = type(command)
    if kind is c.Lease and room is not None and not room.left:
        return r.Grant()
    handler = HANDLERS.get(kind)
    if handler is not None:
        return handler(state, command, member, now)
    reader = READERS.get(kind)
    if reader is None:
        return r.Refused("bad_request", f"{kind.__name__} is not served here")
    room = room or Room()
    if not room.left:
        return USED_UP
    # A client of an earlier release cannot ask for the rest: it gets the whole answer, up to twice the size.
    whole = not getattr(command, "paged", True)
    if whole:
        room.grow(REPLY_BYTES, REPLY_WORK)
    reply = reader(state, command, room, now)
    if whole:
        room.take(REPLY_BYTES, REPLY_WORK)
    return reply
