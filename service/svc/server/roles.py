"""Who may do what: the one table of roles against the commands of frames and the calls of plain clients.

A key has one role. `admin` may do everything. The commands that say nothing of anyone's jobs (`hello` as a
client, `ping`, `wake`, `leave`) are for every key. What is in no row is refused.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from types import MappingProxyType

from svc.domain import commands as c
from svc.domain.names import is_put_origin


class Role(enum.StrEnum):
    """What a key is for."""

    SUBMIT = "submit"
    WORK = "work"
    READ = "read"
    ADMIN = "admin"


_S, _W, _R = Role.SUBMIT, Role.WORK, Role.READ
_ALL, _ADMIN = (_S, _W, _R), ()

#: Commands by the name that `right_of` gives them, and the roles beside `admin` that may use each.
COMMANDS: MappingProxyType[str, tuple[Role, ...]] = MappingProxyType(
    {
        "hello": _ALL,
        "hello_work": (_W,),  # as a consumer or a supervisor: takes up leases, and counts as a worker
        "ping": _ALL,
        "wake": _ALL,
        "leave": _ALL,
        "submit": (_S,),
        "await": (_S, _R),  # by id: its random origin is known to who submitted the job
        "feed": (_S, _R),  # of one random origin: the same
        "feed_all": (_R,),
        "get": (_R,),
        "list": (_R,),
        "stats": (_R,),
        "members": (_R,),
        "exposition": (_R,),
        "lease": (_W,),
        "ack": (_W,),
        "nack": (_W,),
        "release": (_W,),
        "extend": (_W,),
        "lost": (_W,),
        "recall": (_W,),
        "cancel": _ADMIN,
        "requeue": _ADMIN,
        "drain": _ADMIN,
        "resume": _ADMIN,
        "backup": _ADMIN,
        "accept_clock": _ADMIN,
    }
)

#: Calls of plain clients by shared object and method, likewise.
CALLS: MappingProxyType[tuple[str, str], tuple[Role, ...]] = MappingProxyType(
    {
        ("tasks", "put"): (_S,),
        ("tasks", "put_nowait"): (_S,),
        ("tasks", "put_pill"): _ADMIN,  # `put(None)` ends a consumer
        ("tasks", "get"): (_W,),
        ("tasks", "get_nowait"): (_W,),
        ("tasks", "task_done"): (_W,),
        ("tasks", "join"): (_S, _R),
        ("tasks", "qsize"): (_R,),
        ("tasks", "empty"): (_R,),
        ("tasks", "full"): (_R,),
        ("results", "put"): (_W,),
        ("results", "put_nowait"): (_W,),
        ("results", "get"): (_R,),
        ("results", "get_nowait"): (_R,),
        ("results", "task_done"): (_R,),
        ("results", "join"): (_R,),
        ("results", "qsize"): (_R,),
        ("results", "empty"): (_R,),
        ("results", "full"): (_R,),
        ("jobs", "submit"): (_S,),
        ("jobs", "result"): (_R,),
        ("jobs", "show"): (_R,),
    }
)


def right_of(command: c.Command) -> str:
    """Return the row of `COMMANDS` that *command* falls under."""
    match command:
        case c.Hello() if command.role != "client":
            return "hello_work"
        case c.Feed(origin=origin) if not origin or is_put_origin(origin):
            return "feed_all"
        case c.Await(ids=ids) if any(is_put_origin(job.rpartition("-")[0]) for job in ids):
            return "get"
    return str(command.__struct_config__.tag)


def may_command(role: Role, command: c.Command) -> bool:
    """Return whether a key of *role* may send *command*."""
    return role is Role.ADMIN or role in COMMANDS.get(right_of(command), _ADMIN)


def reads_all(role: Role) -> bool:
    """Return whether a key of *role* may look at everyone's jobs."""
    return may_command(role, c.Get([]))


def call_right(typeid: str, method: str, args: Sequence[object], kwds: dict[str, object]) -> tuple[str, str]:
    """Return the row of `CALLS` that a plain client's call falls under."""
    if (
        typeid == "tasks"
        and method in ("put", "put_nowait")
        and (args[0] if args else kwds.get("item")) is None
    ):
        return typeid, "put_pill"
    return typeid, method


def may_call(role: Role, right: tuple[str, str]) -> bool:
    """Return whether a key of *role* may make the call that falls under *right*."""
    return role is Role.ADMIN or role in CALLS.get(right, _ADMIN)
