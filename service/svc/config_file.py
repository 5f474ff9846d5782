"""The settings file `svc.toml`: its place, its keys, and the check of a file that was found and not named.

A settings file decides which code a worker runs and which manager gets the key. So a file that was only
found, in the working directory, is read only if no other user could have put it there.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from svc.errors import ConfigurationError

#: The settings file if none is named and this one exists.
CONFIG_FILE = Path("svc.toml")
#: The settings of each command, by name; those of the commands in a group are one level below.
Known = Mapping[str, "frozenset[str] | Known"]
#: The setting that has the name of a command, and its key in that command's table.
_MANAGER, _ADDRESS = "manager", "address"


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
    for reason in (_distrust(CONFIG_FILE, link), *map(_distrust, _deciding_paths(CONFIG_FILE))):
        if reason:
            raise ConfigurationError(
                f"the settings file {CONFIG_FILE} is not read: {reason}; if you trust it, name it: "
                f"svc --config {CONFIG_FILE} (or SVC_CONFIG)"
            )
    return load_config(CONFIG_FILE)


def load_config(path: Path) -> dict[str, Any]:
    """Return the content of the settings file *path*.

    Raises:
        ConfigurationError: the file cannot be read or is not TOML.
    """
    import tomllib  # most commands have no settings file

    text = ""
    try:
        text = path.read_text(encoding="utf-8")
        return tomllib.loads(text)
    except OSError as error:
        raise ConfigurationError(f"the settings file {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"the settings file {path} is not TOML: {_key_and_table(text) or error}"
        ) from None


def config_defaults(config: Mapping[str, Any], known: Known) -> dict[str, Any]:
    """Return the defaults of every command: its own table overrides the keys at the top of the file.

    A key at the top, such as `manager`, is for every command that has this setting. A key in a table,
    such as `[worker]` or `[jobs.list]`, is for that command. TOML allows no key beside a table of the same
    name, so the key `address` in the table `[manager]` is the same as `manager` at the top.

    Raises:
        ConfigurationError: a key is not a setting; the message has the most similar one.
    """
    table = config.get(_MANAGER)
    if isinstance(table, dict) and _ADDRESS in table:
        rest = {key: value for key, value in table.items() if key != _ADDRESS}
        shared = {_MANAGER: _text(table[_ADDRESS])}
        return _defaults({**config, _MANAGER: rest}, known, shared, "")
    return _defaults(config, known, {}, "")


def _others_can_write(path: Path) -> bool:
    """Return whether a user other than its owner and root could change *path* or put a file there.

    Many systems give each user a group of their own, which may write: such a group counts as its user.
    """
    found = path.stat()
    return bool(found.st_mode & stat.S_IWOTH) or (
        bool(found.st_mode & stat.S_IWGRP) and not _is_private(found.st_gid, found.st_uid)
    )


def _deciding_paths(path: Path) -> tuple[Path, ...]:
    """Return the paths that decide about the content of *path*: the file, its folder, that of the link."""
    real = path.resolve()
    return (real, real.parent, path.absolute().parent)


def _distrust(path: Path, found: os.stat_result | None = None) -> str:
    """Return the reason why *path* may come from another user; "" if it cannot, or if that is not known."""
    if not hasattr(os, "geteuid"):
        return ""
    try:
        status = found or path.stat()
    except OSError as error:
        return f"{path} cannot be looked at ({error.strerror})"
    if status.st_uid not in (os.geteuid(), 0):
        return f"{path} belongs to another user (uid {status.st_uid})"
    if found is None and _others_can_write(path):
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


def _key_and_table(text: str) -> str:
    """Return the cure if *text* has a key and a table of the same name, else an empty text."""
    import tomllib

    top, _, tables = f"\n{text}".partition("\n[")
    try:
        keys = tomllib.loads(top)
    except tomllib.TOMLDecodeError:
        return ""
    for name in re.findall(r"^\[\s*([\w-]+)\s*[\].]", f"[{tables}", re.MULTILINE):
        if name in keys:
            place = f"[{name}], as `{_ADDRESS}`" if name == _MANAGER else "the tables of its commands"
            return f"it has a key `{name}` beside a table [{name}]; write the key into {place}"
    return ""


def _defaults(
    table: Mapping[str, Any], known: frozenset[str] | Known, inherited: Mapping[str, Any], path: str
) -> dict[str, Any]:
    """Return the defaults of a command or of a group's commands, from its *table* and *inherited* keys."""
    tables: dict[str, Any] = {}
    if isinstance(known, Mapping):
        tables = {key: value for key, value in table.items() if isinstance(value, dict)}
        _check(tables, known, path, "table")
    own = {key.replace("-", "_"): _text(value) for key, value in table.items() if key not in tables}
    names = _names(known)
    _check(own, names, path, "setting")
    shared = {**inherited, **own}
    if isinstance(known, Mapping):
        return {
            name: _defaults(tables.get(name, {}), inner, shared, f"{path}{name}.")
            for name, inner in known.items()
        }
    return {key: value for key, value in shared.items() if key in names}


def _check(found: Mapping[str, Any], known: frozenset[str] | Known, path: str, kind: str) -> None:
    for key in found:
        if key not in known:
            import difflib

            near = difflib.get_close_matches(key, sorted(known), n=1, cutoff=0.5)
            hint = f"; the nearest {kind} is {path}{near[0]}" if near else ""
            raise ConfigurationError(f"the settings file has an unknown {kind} {path}{key}{hint}")


def _names(known: frozenset[str] | Known) -> frozenset[str]:
    """Return the settings of a command, or of all commands of a group."""
    if isinstance(known, Mapping):
        return frozenset().union(*map(_names, known.values()))
    return known


def _text(value: Any) -> Any:
    """Return a value as the text of a flag: a list with commas; a boolean stays one."""
    if isinstance(value, list):
        return ",".join(map(str, value))
    return value if isinstance(value, bool) else str(value)
