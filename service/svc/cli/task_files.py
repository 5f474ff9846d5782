"""The files of tasks in the working directory, and whether they have changed: for `svc dev`.

It looks at them a few times a second, which takes a millisecond and works on every file system, such as a
folder that a container mounts. So `svc dev` needs no other package for it.
"""

from __future__ import annotations

import hashlib
import os
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

#: Seconds between two looks. A change counts once two looks in a row have found the same.
LOOK_SECONDS: Final = 0.25
#: Files that are looked at.
FILES_MAX: Final = 2000
_NOT_OURS: Final = {"__pycache__", "node_modules", "site-packages", "dist-packages"}


class _Stamp(NamedTuple):
    """What shows that a file may have changed: an editor may write it, or put another one in its place."""

    modified: int
    size: int
    inode: int


class TaskFiles:
    """The Python files in a folder, in the packages there and in those of the tasks.

    Hidden files and folders, environments and caches do not count. A file that was saved with the same
    content has not changed.
    """

    def __init__(
        self,
        tasks: Sequence[str],
        folder: Path = Path(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Look at the files of the modules *tasks* in *folder*; *clock* gives seconds."""
        self._tops = {name.partition(".")[0] for name in tasks}
        self._folder = folder
        self._clock = clock
        self._next = 0.0
        self._last = self._settled = self._look()
        self._digests = {path: _digest(path) for path in self._settled}

    def changed(self) -> list[Path]:
        """Return the files that were changed, added or removed since the last call that told of some."""
        if self._clock() < self._next:
            return []
        self._next = self._clock() + LOOK_SECONDS
        found = self._look()
        if found != self._last:
            self._last = found  # they may change on: an editor saves in steps, and often several files
            return []
        if found == self._settled:
            return []
        before, self._settled = self._settled, found
        touched = [
            path for path in sorted(found.keys() | before.keys()) if found.get(path) != before.get(path)
        ]
        return [path for path in touched if self._differs(path)]

    def _differs(self, path: Path) -> bool:
        digest = _digest(path)
        before = self._digests.get(path, b"")
        self._digests[path] = digest
        return digest != before

    def _look(self) -> dict[Path, _Stamp]:
        found: dict[Path, _Stamp] = {}
        for path in islice(self._files(), FILES_MAX):
            with suppress(OSError):
                state = path.stat()
                found[path] = _Stamp(state.st_mtime_ns, state.st_size, state.st_ino)
        return found

    def _files(self) -> Iterator[Path]:
        packages: list[str] = []
        with suppress(OSError), os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name.endswith(".py") and not entry.name.startswith("."):
                    yield self._folder / entry.name
                elif self._is_package(entry):
                    packages.append(entry.name)
        for package in sorted(packages, key=lambda name: (name not in self._tops, name)):
            yield from _files_below(self._folder / package)

    def _is_package(self, entry: os.DirEntry[str]) -> bool:
        if not entry.is_dir() or not _is_ours(entry.name):
            return False
        return entry.name in self._tops or Path(entry.path, "__init__.py").exists()


def _files_below(folder: Path) -> Iterator[Path]:
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if _is_ours(name))
        for name in sorted(names):
            if name.endswith(".py") and not name.startswith("."):
                yield Path(place, name)


def _is_ours(folder: str) -> bool:
    return not folder.startswith(".") and folder not in _NOT_OURS


def _digest(path: Path) -> bytes:
    """Return the digest of a file, b"" if it is not there."""
    try:
        return hashlib.blake2b(path.read_bytes(), digest_size=16).digest()
    except OSError:
        return b""


def mistake_in(files: Sequence[Path]) -> str:
    """Return where one of *files* is no Python, in one line; "" if all are."""
    for path in files:
        try:
            source = path.read_bytes()
        except OSError:
            continue  # it was removed
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                compile(source, str(path), "exec", dont_inherit=True)
        except SyntaxError as error:
            return f"{path}, line {error.lineno or 0}: {error.msg}"
        except (ValueError, RecursionError, MemoryError, OverflowError) as error:
            return f"{path}: {error}"
    return ""
