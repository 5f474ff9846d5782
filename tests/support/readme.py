"""The commands in a page of the documentation."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.support.svc import ROOT

README = ROOT / "README.md"


@dataclass(frozen=True)
class Line:
    """One line of a block of commands: the command, and the comment about its result."""

    command: str
    comment: str = ""

    @property
    def exit_code(self) -> int:
        """The exit code in the comment, else 0."""
        named = re.search(r"exit code (\d+)", self.comment)
        return int(named[1]) if named else 0

    @property
    def printed(self) -> str | None:
        """The whole output, if the comment is a number."""
        return self.comment if self.comment.isdigit() else None


def section(title: str, page: Path = README) -> str:
    """Return the text below a heading of *page*, up to the next one."""
    _, found, rest = page.read_text().partition(f"\n## {title}\n")
    assert found, f"{page.name} has no section {title!r}"
    return rest.partition("\n## ")[0]


def blocks(text: str, language: str = "") -> list[str]:
    """Return the code blocks of a text that are marked with *language*."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [block for marked, block in found if marked == language]


def lines(block: str) -> list[Line]:
    """Return the commands of a block."""
    parts = [re.split(r"\s{2,}#\s+", line, maxsplit=1) for line in block.splitlines() if line.strip()]
    return [Line(*part) for part in parts]
