"""The tables of handlers; each handler is registered where it is defined.

Import the tables from `domain.apply`, which imports all modules that have handlers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from svc.domain.commands import Command
from svc.domain.members import Member
from svc.domain.queue_state import QueueState
from svc.domain.replies import Reply
from svc.domain.room import Room

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
