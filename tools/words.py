"""Count the words that make prose slow to read: `python -m tools.words [--list WORD] PATH …`.

CONTRIBUTING.md asks for a noun in place of a clause with "what", and for *if* in place of "where" at a
condition. The table shows how often both stand in 1,000 words of docstrings, comments and Markdown pages. A
path is a folder, a Python file or a page. The table is no gate.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tools.sources import files_of

#: The words that are counted, and how many of each 1,000 words may hold.
WORDS = {"what": 3.0, "where": 1.5}

_WORD = re.compile(r"[a-z']+")


class Line(NamedTuple):
    """A line of a docstring, of a comment or of a page."""

    place: str
    text: str


def prose(file: Path) -> Iterator[Line]:
    """Yield the lines of a Markdown page outside its code blocks, or the docstrings and comments of a file.

    Raises:
        SyntaxError: it is neither a page nor Python.
    """
    if file.suffix == ".md":
        yield from _prose_of_page(file)
        return
    for node in ast.walk(ast.parse(file.read_bytes())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node, clean=False)
            first = node.body[0].lineno if text else 0
            yield from (
                Line(f"{file}:{number}", line) for number, line in enumerate((text or "").splitlines(), first)
            )
    with file.open("rb") as source:
        for token in tokenize.tokenize(source.readline):
            if token.type == tokenize.COMMENT and not token.string.startswith(("# noqa", "# type:")):
                yield Line(f"{file}:{token.start[0]}", token.string)


def _prose_of_page(page: Path) -> Iterator[Line]:
    in_code = False
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
        if line.startswith("```"):
            in_code = not in_code
        elif not in_code:
            yield Line(f"{page}:{number}", line)


def words(lines: Iterable[Line]) -> Counter[str]:
    """Return how often each word stands in *lines*, in lower case."""
    return Counter(word for line in lines for word in _WORD.findall(line.text.lower()))


def per_thousand(counted: Counter[str], word: str) -> float:
    """Return how often *word* stands in 1,000 words; 0 if there are none."""
    return 1000 * counted[word] / max(1, counted.total())


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a row for each path, or the lines that hold a word; return exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    parser.add_argument("--list", metavar="WORD", help="print the lines that hold WORD")
    chosen = parser.parse_args(arguments)
    for path in chosen.paths:
        lines = [line for file in files_of(path, ".py", ".md") for line in prose(file)]
        if chosen.list:
            for line in lines:
                if chosen.list in _WORD.findall(line.text.lower()):
                    sys.stdout.write(f"{line.place}: {line.text.strip()}\n")
        else:
            sys.stdout.write(_row(path, words(lines)))
    return 0


def _row(path: Path, counted: Counter[str]) -> str:
    figures = (f"{word} {per_thousand(counted, word):.1f} (at most {most:g})" for word, most in WORDS.items())
    return f"{path}: of 1,000 words in docstrings, comments and pages: {', '.join(figures)}\n"


if __name__ == "__main__":
    raise SystemExit(main())
