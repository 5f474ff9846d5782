"""Writes the reference of the commands from their declarations.

Run `python -m tools.commands > docs/commands.md`.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator

import msgspec

from svc.domain import commands as c
from svc.domain.roles import Role
from svc.server.roles import RIGHTS

_HEAD = """\
# Commands

svc's own clients and workers send these commands to the manager; a request is a list of them in one frame.
A test compares this page with the declarations, which `service/svc/domain/commands.py` collects. After a
change of these, run `python -m tools.commands > docs/commands.md`.

## Rights

A key of a role may send the commands with `yes` in its column. Three rights depend on the fields of a
command: `hello_work` is for a `hello` as a consumer or a supervisor, `feed_all` for a `feed` of all origins
or of one that can be guessed, and `get` also for an `await` of a job whose id can be guessed.
"""


def markdown() -> str:
    """Return the text of `docs/commands.md`."""
    return "\n".join([_HEAD, *_rights(), "", "## Reference", *_reference()]) + "\n"


def _rights() -> Iterator[str]:
    yield f"| right | {' | '.join(Role)} |"
    yield "|---" * (1 + len(Role)) + "|"
    for right, roles in RIGHTS.items():
        marks = ("yes" if role is Role.ADMIN or role in roles else "" for role in Role)
        yield f"| `{right}` | {' | '.join(marks)} |"


def _reference() -> Iterator[str]:
    for kind in c.COMMANDS:
        if kind.on_wire:
            yield f"\n### `{c.verb_of(kind)}`\n"
            yield inspect.cleandoc(kind.__doc__ or "")
            if fields := [_field(kind, field) for field in msgspec.structs.fields(kind)]:
                yield f"\nFields: {', '.join(fields)}."


def _field(kind: type[c.Command], field: msgspec.structs.FieldInfo) -> str:
    declared = kind.__annotations__[field.name].replace("b.", "")
    return f"`{field.name}` ({'required' if field.required else 'optional'}, `{declared}`)"


if __name__ == "__main__":
    sys.stdout.write(markdown())
