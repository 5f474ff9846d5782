"""The settings file: its place, and the check of a file that was found and not named.

A settings file decides which code a worker runs and which manager gets the key. So a file that was only
found, in the working directory, is read only if no other user could have put it there.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

from svc.errors import ConfigurationError

#: The settings file if none is named and this one exists.
CONFIG_FILE = Path("svc.toml")


def find_config(named: Path | None) -> dict[str, Any] | None:
    """Return the content of the settings file *named*, else of `svc.toml` in the working directory, or None.

    Raises:
        ConfigurationError: the file cannot be read or is not TOML; or it was only found, and another user
            owns it or could have written it.
    """
    if named is not None:
        return load_config(named)
    try:
        link = CONFIG_FILE.lstat()
    except OSError:
        return None
    for doubt in (_doubt(CONFIG_FILE, link), *map(_doubt, _ways(CONFIG_FILE))):
        if doubt:
            raise ConfigurationError(
                f"the settings file {CONFIG_FILE} is not read: {doubt}; if you trust it, name it: "
                f"svc --config {CONFIG_FILE} (or SVC_CONFIG)"
            )
    return load_config(CONFIG_FILE)


def load_config(path: Path) -> dict[str, Any]:
    """Return the content of the settings file *path*.

    Raises:
        ConfigurationError: the file cannot be read or is not TOML.
    """
    import tomllib  # most commands have no settings file

    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"the settings file {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"the settings file {path} is not TOML: {error}") from None


def others_can_write(path: Path) -> bool:
    """Return whether a user other than its owner and root could change *path* or put a file there.

    Many systems give each user a group of their own, which may write: such a group counts as its user.
    """
    found = path.stat()
    return bool(found.st_mode & stat.S_IWOTH) or (
        bool(found.st_mode & stat.S_IWGRP) and not _is_private(found.st_gid, found.st_uid)
    )


def _ways(path: Path) -> tuple[Path, ...]:
    """Return the paths that decide about the content of *path*: the file, its folder, that of the link."""
    real = path.resolve()
    return (real, real.parent, path.absolute().parent)


def _doubt(path: Path, found: os.stat_result | None = None) -> str:
    """Return why *path* may come from another user; "" if it cannot, or if that is not known."""
    if not hasattr(os, "geteuid"):
        return ""
    try:
        status = found or path.stat()
    except OSError as error:
        return f"{path} cannot be looked at ({error.strerror})"
    if status.st_uid not in (os.geteuid(), 0):
        return f"{path} belongs to another user (uid {status.st_uid})"
    if found is None and others_can_write(path):
        return f"other users can write {path}"
    return ""


def _is_private(group: int, owner: int) -> bool:
    import grp
    import pwd

    try:
        user, members = pwd.getpwuid(owner), grp.getgrgid(group).gr_mem
    except KeyError:
        return False
    return user.pw_gid == group and set(members) <= {user.pw_name}
