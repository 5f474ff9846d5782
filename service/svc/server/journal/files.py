"""Files of a journal: for this user alone, and on the disk with their names."""

from __future__ import annotations

import os
import secrets
import shutil
from pathlib import Path


def create(path: Path) -> int:
    """Create the file *path* for this user alone, and open it.

    Raises:
        FileExistsError: it exists.
        OSError: it cannot be created.
    """
    return os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)


def sync(path: Path) -> None:
    """Sync a file, or the names in a directory.

    Raises:
        OSError: it cannot be opened, or the disk reports an error.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def copy_synced(source: Path, target: Path) -> None:
    """Copy a file to the new file *target*, and sync it.

    Raises:
        OSError: *target* exists, the disk is full, or this user may not write there.
    """
    with source.open("rb") as read, os.fdopen(create(target), "wb") as written:
        shutil.copyfileobj(read, written, 1 << 20)
    sync(target)


def file_bytes(path: Path) -> int:
    """Return the size of the file *path*, or 0 if it does not exist or cannot be looked at."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def draft_beside(path: Path) -> Path:
    """Return a new hidden path beside *path*, under which to make that file until it is complete."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")


def make_directory(directory: Path) -> None:
    """Make a directory and its parents, so that their names survive power loss too."""
    if directory.is_dir():
        return
    make_directory(directory.parent)
    directory.mkdir(mode=0o700, exist_ok=True)
    sync(directory.parent)
