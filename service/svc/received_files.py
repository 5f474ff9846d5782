"""Directories for files that came over the network; nothing of them outlives its process for long.

Each process has a directory of its own below one of its user's, and locks it. A process that is killed leaves
its directory behind, without the lock: the next process that makes or looks for such directories removes it.
"""

from __future__ import annotations

import contextlib
import os
import stat
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from svc.errors import CodecError

_MODE: Final = 0o700


class Folder:
    """An empty directory, which is removed with this object, or with its process."""

    def __init__(self) -> None:
        """Make the directory.

        Raises:
            CodecError: there is no place for it.
        """
        import tempfile  # commands that start fast come by here

        try:
            own = _own_directory()
            self.path = Path(tempfile.mkdtemp(dir=own))
        except OSError as error:
            raise CodecError(
                f"there is no directory for files that arrive: {error.strerror or error}; "
                "TMPDIR names another place for it"
            ) from error
        self._finalizer = weakref.finalize(self, _remove, self.path, os.getpid())

    def remove(self) -> None:
        """Remove it with all that is in it. May be called twice."""
        self._finalizer()


def remove_lost() -> None:
    """Remove the directories of processes of this user that were killed."""
    root = _root()
    with contextlib.suppress(OSError):
        if _is_own(root):
            with _locked(root):
                _sweep(root)


def _root() -> Path:
    import tempfile

    user = os.getuid() if hasattr(os, "getuid") else os.getlogin()
    return Path(tempfile.gettempdir()) / f"svc-files-{user}"


def _is_own(root: Path) -> bool:
    """Return whether *root* is a directory of this user alone, and not a link that someone has put there."""
    found = root.lstat()
    if not stat.S_ISDIR(found.st_mode):
        return False
    return not hasattr(os, "getuid") or (found.st_uid == os.getuid() and not found.st_mode & 0o077)


class _OwnDirectory:
    """The directory of this process; a forked child makes another."""

    def __init__(self, root: Path) -> None:
        import tempfile

        self.pid = os.getpid()
        with _locked(root):
            _sweep(root)
            self.path = Path(tempfile.mkdtemp(prefix=f"{self.pid}-", dir=root))
            #: Holds the lock as long as this process lives.
            self.lock = _lock_of(self.path)
        weakref.finalize(self, _remove, self.path, self.pid)


_own: list[_OwnDirectory] = []


def _own_directory() -> Path:
    if not _own or _own[0].pid != os.getpid() or not _own[0].path.is_dir():
        root = _root()
        root.mkdir(mode=_MODE, exist_ok=True)
        if not _is_own(root):
            raise PermissionError(0, f"{root} is not a directory of this user alone")
        _own[:] = [_OwnDirectory(root)]
    return _own[0].path


def _sweep(root: Path) -> None:
    """Remove the directories in *root* that no process holds."""
    import shutil

    for path in root.iterdir():
        lock = _lock_of(path)
        if lock is not None:
            shutil.rmtree(path, ignore_errors=True)
            os.close(lock)


def _lock_of(path: Path) -> int | None:
    """Lock a directory as long as the returned descriptor is open; None if another process has it."""
    try:
        import fcntl
    except ImportError:  # Windows: nothing is swept there
        return None
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


@contextlib.contextmanager
def _locked(root: Path) -> Iterator[None]:
    """Let no other process make or remove directories meanwhile."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    descriptor = os.open(root, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove(path: Path, pid: int) -> None:
    # A forked child must not remove the files of its parent.
    if os.getpid() == pid:
        import shutil

        shutil.rmtree(path, ignore_errors=True)
