"""Count statements and long files: `python -m tools.statements FOLDER …`.

A statement is a node of the syntax tree, so layout, comments and the length of a docstring change nothing.
The table has a row for each package, the sum, and the files that are longer than CONTRIBUTING.md allows. It
is no gate.
"""

from __future__ import annotations

import argparse
import ast
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from tools.sources import files_of

#: The most lines of a file (CONTRIBUTING.md).
MOST_LINES = 400


def statements(file: Path) -> int:
    """Return the number of statements in the Python file *file*, nested ones included.

    Raises:
        SyntaxError: it is not Python.
    """
    return sum(isinstance(node, ast.stmt) for node in ast.walk(ast.parse(file.read_bytes())))


def long_files(folder: Path) -> Iterator[tuple[Path, int]]:
    """Yield each Python file below *folder* that has more than `MOST_LINES` lines, and its lines."""
    for file in files_of(folder, ".py"):
        lines = len(file.read_bytes().splitlines())
        if lines > MOST_LINES:
            yield file, lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the statements of each package and the long files; return exit code 0."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    for folder in parser.parse_args(arguments).folders:
        counted: Counter[Path] = Counter()
        for file in files_of(folder, ".py"):
            counted[file.parent] += statements(file)
        for package, count in sorted(counted.items()):
            sys.stdout.write(f"{package}: {count:,} statements\n")
        sys.stdout.write(f"{folder} in all: {counted.total():,} statements\n")
        for file, lines in long_files(folder):
            sys.stdout.write(f"{file}: {lines} lines (at most {MOST_LINES})\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
