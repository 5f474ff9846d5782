"""The Python files that the tools read."""

from __future__ import annotations

from pathlib import Path


def python_files(path: Path) -> list[Path]:
    """Return *path* if it is a file, otherwise the Python files below it in the order of their names.

    Raises:
        FileNotFoundError: nothing is there.
    """
    if not path.exists():
        raise FileNotFoundError(path)
    return [path] if path.is_file() else sorted(path.rglob("*.py"))
