"""Writes the tables of options in docs/cli.md, and sections of new commands; `make docs` runs it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from svc.cli.program import LazyGroup, program

PAGE = Path(__file__).parents[1] / "docs" / "cli.md"
HEAD = "| option | meaning | variable | default |\n|---|---|---|---|\n"
#: A table in the section of one command.
TABLE = re.compile(r"(?:\| option \|.*\n\|---.*\n)(?:\|.*\n)*")


def commands(group: Any = None, name: str = "svc") -> Iterator[tuple[str, Any]]:
    """Yield every command with its whole name."""
    group = group or program()
    context = typer.Context(group)
    for word in group.list_commands(context):
        command = group.get_command(context, word)
        if isinstance(command, LazyGroup):
            yield from commands(command, f"{name} {word}")
        else:
            yield f"{name} {word}", command


def table(command: Any) -> str:
    """Return the table of a command's options."""
    return HEAD + "".join(f"| {' | '.join(map(_escaped, _row(each)))} |\n" for each in command.params)


def written(page: str) -> str:
    """Return the *page* with the present tables, and with a section for each command that has none yet.

    `svc health` has no table here, because it reads its options itself.
    """
    previous = ""
    for name, command in commands():
        if f"\n## `{name}`\n" not in page:
            page = _with_section(page, name, command, previous)
        if command.params:
            before, title, rest = page.partition(f"\n## `{name}`\n")
            section, end, after = rest.partition("\n## ")
            old = TABLE.search(section)
            if old is not None:
                section = section.replace(old[0], table(command))
            page = before + title + section + end + after
        previous = name
    return page


def _with_section(page: str, name: str, command: Any, previous: str) -> str:
    """Return the *page* with a section for a command, behind that of the *previous* one."""
    before, title, rest = page.partition(f"\n## `{previous}`\n")
    section, end, after = rest.partition("\n## ")
    example = command.epilog.removeprefix("Example: ")
    new = f"\n## `{name}`\n\n{command.help}\n\n```\n{example}\n```\n\n{HEAD}"
    return f"{before}{title}{section}{new}{end}{after}"


def _row(option: Any) -> Iterator[str]:
    flag = option.opts[0]
    yield f"`{' '.join(filter(None, (flag if flag.startswith('-') else '', option.metavar or '')))}`"
    yield option.help
    yield f"`{option.envvar}`" if option.envvar else ""
    default = "" if option.default in (None, False) else str(option.default)
    yield option.show_default if isinstance(option.show_default, str) else default


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    old = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(written(old), encoding="utf-8")
    sys.stdout.write(f"{PAGE} {'is as it was' if written(old) == old else 'is changed'}\n")
