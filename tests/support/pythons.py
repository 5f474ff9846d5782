"""The other CPythons of this machine, for tests with plain clients."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

#: Minor versions of CPython 3 whose stock clients must work (promise 9).
PROMISED = range(9, 14)


@cache
def interpreters() -> tuple[str, ...]:
    """Return one real interpreter for each such minor version that is found, including this one."""
    found: dict[int, str] = {sys.version_info.minor: str(Path(sys.executable))}
    candidates = [path for name in _names() if (path := shutil.which(name))]
    candidates += sorted(map(str, Path.home().glob(".pyenv/versions/*/bin/python3")))
    for candidate in candidates:
        minor = _minor(candidate)
        if minor in PROMISED:
            found.setdefault(minor, candidate)
    return tuple(found[minor] for minor in sorted(found))


def _names() -> list[str]:
    return [f"python3.{minor}" for minor in PROMISED]


def _minor(python: str) -> int:
    """Return the minor version of a CPython 3, or -1 if it does not run (a shim without a version)."""
    done = subprocess.run([python, "-VV"], capture_output=True, text=True, timeout=60, check=False)
    match = re.match(r"Python 3\.(\d+)", done.stdout)
    return int(match[1]) if match and done.returncode == 0 else -1
