"""The table of roles against the commands of frames and the calls of plain clients.

A key has one role, and `admin` may do everything. Each command declares its rights itself, in
`domain.commands`. Anything that is in no row is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

from svc.domain import commands as c
from svc.domain.roles import ADMIN_ALONE, Role, Roles

_S, _W, _R, _C = Role.SUBMIT, Role.WORK, Role.READ, Role.SHELL

#: The rights that commands need (see `Command.right`), and the roles beside `admin` that have each.
RIGHTS: MappingProxyType[str, Roles] = MappingProxyType(
    {
        right: roles
        for kind in c.COMMANDS
        if kind.on_wire
        for right, roles in ((c.verb_of(kind), kind.roles), *kind.rights.items())
    }
)

#: Calls of plain clients by shared object and method, likewise.
CALLS: MappingProxyType[tuple[str, str], Roles] = MappingProxyType(
    {
        ("tasks", "put"): (_S, _C),
        ("tasks", "put_nowait"): (_S, _C),
        ("tasks", "put_pill"): ADMIN_ALONE,  # `put(None)` ends a consumer
        ("tasks", "get"): (_W,),
        ("tasks", "get_nowait"): (_W,),
        ("tasks", "task_done"): (_W,),
        ("tasks", "join"): (_S, _C, _R),
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
        ("jobs", "submit"): (_S, _C),
        ("jobs", "result"): (_R,),
        ("jobs", "show"): (_R,),
    }
)


def may_command(role: Role, command: c.Command) -> bool:
    """Return whether a key of *role* may send *command*."""
    return role is Role.ADMIN or role in RIGHTS.get(command.right(), ADMIN_ALONE)


def free_commands(role: Role) -> frozenset[type[c.Command]]:
    """Return the commands that a key of *role* may send whatever their fields are."""
    return frozenset(
        kind
        for kind in c.COMMANDS
        if kind.on_wire
        and (role is Role.ADMIN or all(role in roles for roles in (kind.roles, *kind.rights.values())))
    )


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
    return role is Role.ADMIN or role in CALLS.get(right, ADMIN_ALONE)
