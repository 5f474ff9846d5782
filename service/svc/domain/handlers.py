"""Hands every command to its handler, which is registered where it is defined.

Import the tables and `apply` from `domain.apply`, which imports all modules that have handlers.

The answers to one request have a *room*: their size is limited, and the work that they make.
A page of an answer ends at the limit that it reaches first. A unit of work is about a microsecond of the
measuring host in `benchmarks/results`. Work is counted and not timed, so that equal requests have equal
answers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from svc.domain.commands import Command, Lease
from svc.domain.members import Member
from svc.domain.queue_state import QueueState
from svc.domain.replies import Grant, Refused, Reply

if TYPE_CHECKING:
    from svc.domain.survey import Survey

#: Bytes of answers to one request: more than that goes out only if one thing alone is larger.
REPLY_BYTES = 8 * 1024 * 1024
#: Work that the answers to one request may make.
REPLY_WORK = 12_000
#: Work of finding one job, of telling its outcome alone or in a span, of describing it, and of passing over a
#: chunk of jobs.
FIND_WORK = 1.0
OUTCOME_WORK = 2.0
SPAN_WORK = 0.25
VIEW_WORK = 15.0
PASS_WORK = 1.0
#: Work of answering a request that has waited, beside that of its answer.
ANSWER_WORK = 20.0
#: Work for looking up an event, and for each byte of an event that has to be read from the journal.
READ_WORK = 15.0
READ_BYTE_WORK = 0.001
#: Work for the counts of a queue, and for a name of a queue or a task among those that a worker serves.
QUEUE_WORK = 3.0
NAME_WORK = 0.4
#: Work of granting a lease, whose arguments may have to be read.
GRANT_WORK = 40.0
#: Work for checking one range of results for that of a job.
RANGE_WORK = 0.05
#: Bytes of an outcome, an attempt or a view beside its results and texts.
ITEM_BYTES = 64


class Room(msgspec.Struct, eq=False):
    """The bytes and the work that are left for the answers to one request; one item may overdraw them.

    Attributes:
        survey: the counts of the queues for the next `Stats`, if they were begun.
    """

    size: float = REPLY_BYTES
    work: float = REPLY_WORK
    survey: Survey | None = None

    @property
    def left(self) -> bool:
        """Whether some of both is left."""
        return self.size > 0 and self.work > 0

    def grow(self, size: float, work: float) -> None:
        """Add *size* bytes and that much *work*."""
        self.size += size
        self.work += work

    def holds(self, size: float) -> bool:
        """Return whether *size* bytes can be taken without overdrawing."""
        return 0 < self.size >= size and self.work > 0

    def take(self, size: float = 0, work: float = 0) -> None:
        """Use up *size* bytes and that much *work*."""
        self.size -= size
        self.work -= work


Handler = Callable[[QueueState, Any, Member, float], Reply | None]
Reader = Callable[[QueueState, Any, Room, float], Reply | None]
H = TypeVar("H", bound=Handler)
R = TypeVar("R", bound=Reader)

#: The handlers of commands that may change the state.
HANDLERS: dict[type[Command], Handler] = {}
#: The handlers of commands that change nothing, and whose answers may be large.
READERS: dict[type[Command], Reader] = {}


def handles(kind: type[Command]) -> Callable[[H], H]:
    """Register a function as the handler of the commands of *kind*."""

    def register(handler: H) -> H:
        HANDLERS[kind] = handler
        return handler

    return register


def reads(kind: type[Command]) -> Callable[[R], R]:
    """Register a function as the reader that answers the commands of *kind* within a room."""

    def register(reader: R) -> R:
        READERS[kind] = reader
        return reader

    return register


#: The answer to a reading command if the answers to its request are already too long.
USED_UP = Refused("bad_request", "the answers to this request are too large together; ask for less at a time")


def charge(room: Room, grant: Grant) -> None:
    """Take from *room* the bytes of the jobs that *grant* hands out, and the work that its leases made."""
    size = sum([sum(map(len, each.bodies)) for each in grant.deliveries])
    room.take(size, GRANT_WORK * len(grant.deliveries))


def apply(
    state: QueueState, command: Command, member: Member, now: float, room: Room | None = None
) -> Reply | None:
    """Carry out *command* for *member* at time *now* (Unix time, seconds).

    *room* limits the answers to the request that the command came with; at first it is whole.

    Returns the reply, or None if the command may wait and has no answer yet. The host asks again once
    `state.readied` or `state.progressed` reports progress.
    """
    kind = type(command)
    if kind is Lease and room is not None and not room.left:
        return Grant()
    handler = HANDLERS.get(kind)
    if handler is not None:
        return handler(state, command, member, now)
    reader = READERS.get(kind)
    if reader is None:
        return Refused("bad_request", f"{kind.__name__} is not served here")
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
