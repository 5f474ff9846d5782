"""The roles of keys. A key has one, and each command names those that may send it."""

from __future__ import annotations

import enum
from typing import Final, TypeAlias


class Role(enum.StrEnum):
    """The purpose of a key; `admin` may do everything."""

    SUBMIT = "submit"
    WORK = "work"
    READ = "read"
    ADMIN = "admin"
    SHELL = "shell"


Roles: TypeAlias = tuple[Role, ...]

#: The command says nothing of anyone's jobs.
EVERY_ROLE: Final = (Role.SUBMIT, Role.SHELL, Role.WORK, Role.READ)
ADMIN_ALONE: Final[Roles] = ()
