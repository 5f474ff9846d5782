"""The version of the code of tasks: one digest of the sources that a consumer has loaded.

Counted are the modules of `--tasks`, the other modules of their packages, and each module that has been
imported from a folder in which one of these packages lies, as far as it is no folder of libraries. So a
helper beside the tasks counts, and the standard library and what is installed do not. A module that a task
imports later does not either.

A consumer that is forked has the preloaded modules in memory as they were when the forkserver imported them,
though a file may have changed since. So the forkserver reads their digests at once (`note`).
"""

from __future__ import annotations

import hashlib
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Final

#: Hexadecimal digits of a version: two of a hundred versions are equal once in a billion cases.
VERSION_DIGITS: Final = 12
#: Modules that are counted at most.
MODULES_MAX: Final = 10_000
_LIBRARY_NAMES: Final = {"site-packages", "dist-packages"}
_OURS: Final = __name__.partition(".")[0]
#: The digests of the modules that this process had when `note` was called, by name.
_noted: dict[str, bytes] = {}


def note() -> None:
    """Read the digests of all modules that do not come with Python or with svc, for the forks to come."""
    libraries = _libraries()
    for name, file in _files().items():
        if name.partition(".")[0] != _OURS and not _is_library(file, libraries):
            _noted[name] = _digest_of(file)


def code_version(tasks: Sequence[str]) -> str:
    """Return the version of the code that this process has loaded for the modules *tasks*; "" for none."""
    counted = _counted(tasks)
    if not counted:
        return ""
    whole = hashlib.blake2b(digest_size=VERSION_DIGITS // 2)
    for name, file in sorted(counted.items()):
        whole.update(name.encode() + b"\0" + (_noted.get(name) or _digest_of(file)))
    return whole.hexdigest()


def _counted(tasks: Sequence[str]) -> dict[str, Path]:
    """Return the files of the modules that make up the code of *tasks*, by the names of the modules."""
    files, libraries = _files(), _libraries()
    packages = {name.partition(".")[0] for name in tasks} - {_OURS}
    roots = {root for name in packages if (root := _root_of(name)) and not _is_library(root, libraries)}
    found = {
        name: file
        for name, file in files.items()
        if name in tasks
        or name.partition(".")[0] in packages
        or (_is_in(file, roots) and not _is_library(file, libraries) and name.partition(".")[0] != _OURS)
    }
    return dict(sorted(found.items())[:MODULES_MAX])


def _files() -> dict[str, Path]:
    """Return the files of all modules of this process, by name."""
    found = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
    return {name: Path(file).absolute() for name, file in found.items() if isinstance(file, str)}


def _root_of(package: str) -> Path | None:
    """Return the folder in which a package or module of the top level lies."""
    module = sys.modules.get(package)
    if module is None:
        return None
    file = getattr(module, "__file__", None)
    if isinstance(file, str):
        path = Path(file).absolute()
        return path.parent.parent if _is_package(module) else path.parent
    folders = list(getattr(module, "__path__", ()))
    return Path(folders[0]).absolute().parent if folders else None


def _is_package(module: ModuleType) -> bool:
    return hasattr(module, "__path__")


def _libraries() -> set[Path]:
    """Return the folders of the standard library and of installed packages."""
    kinds = ("stdlib", "platstdlib", "purelib", "platlib")
    return {Path(path).absolute() for kind in kinds if (path := sysconfig.get_path(kind))}


def _is_in(file: Path, folders: set[Path]) -> bool:
    """Return whether a file or folder is in one of *folders*."""
    return not folders.isdisjoint((file, *file.parents))


def _is_library(file: Path, libraries: set[Path]) -> bool:
    """Return whether a file or folder belongs to a library, also in an environment beside the tasks."""
    return _is_in(file, libraries) or not _LIBRARY_NAMES.isdisjoint(file.parts)


def _digest_of(file: Path) -> bytes:
    """Return the digest of a file; of its name if it cannot be read, such as one in an archive."""
    try:
        return hashlib.blake2b(file.read_bytes(), digest_size=16).digest()
    except OSError:
        return hashlib.blake2b(str(file).encode(errors="surrogateescape"), digest_size=16).digest()
