"""The files that the tools read."""

from __future__ import annotations

from pathlib import Path


def files_of(path: Path, *suffixes: str) -> list[Path]:
    """Return *path* if it is a file, otherwise the files below it with one of *suffixes*, ordered by name.

    Raises:
        FileNotFoundError: nothing is there.
    """
    if not path.exists():
        raise FileNotFoundError(path)
    return [path] if path.is_file() else sorted(each for each in path.rglob("*") if each.suffix in suffixes)
