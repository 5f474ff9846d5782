"""The base of all commands: what the class of a command declares beside its fields."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import msgspec

from svc.domain.job import is_put_origin
from svc.domain.roles import ADMIN_ALONE, Roles


class Command(msgspec.Struct, frozen=True, array_like=True, tag_field="verb"):
    """Base of all commands.

    Attributes:
        roles: the roles beside `admin` whose keys may send it.
        rights: other rights that it needs if its fields have certain values (see `right`), and their roles.
        on_wire: whether svc's clients may send it; if not, only the manager's part for plain clients does.
        contentless: whether it has no content of its own, so that to refuse one would refuse all.
    """

    roles: ClassVar[Roles] = ADMIN_ALONE
    rights: ClassVar[Mapping[str, Roles]] = MappingProxyType({})
    on_wire: ClassVar[bool] = True
    contentless: ClassVar[bool] = False

    def identity(self) -> object:
        """Return its own part, without the time to wait; None if it is like all others of its kind."""
        if self.contentless:
            return None
        return msgspec.structs.replace(self, wait=0.0) if hasattr(self, "wait") else self

    def right(self) -> str:
        """Return the right that a key needs for this command: its verb, or one of `rights`."""
        return verb_of(type(self))


def verb_of(kind: type[Command]) -> str:
    """Return the verb of a kind of command: its tag on the wire."""
    return str(kind.__struct_config__.tag)


def any_guessable(ids: list[str]) -> bool:
    """Return whether the id of one of the jobs can be guessed."""
    return any(is_put_origin(job.rpartition("-")[0]) for job in ids)
