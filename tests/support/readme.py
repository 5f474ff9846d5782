"""Commands as a page of the documentation has them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tests.support.svc import ROOT

README = ROOT / "README.md"


@dataclass(frozen=True)
class Line:
    """One line of a block of commands: what is run, and the comment that says what comes of it."""

    command: str
    comment: str = ""

    @property
    def exit_code(self) -> int:
        """The exit code that the comment names, else 0."""
        named = re.search(r"exit code (\d+)", self.comment)
        return int(named[1]) if named else 0

    @property
    def printed(self) -> str | None:
        """The number that the comment gives as the whole output, if it is one."""
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
