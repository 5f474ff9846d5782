"""The settings file `svc.toml`: its place, its keys, and the check of a file that was found and not named.

A settings file decides which code a worker runs and which manager gets the key. So a file that was only
found, in the working directory, is read only if no other user could have put it there.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from svc.errors import ConfigurationError

#: The settings file if none is named and this one exists.
CONFIG_FILE = Path("svc.toml")
#: The settings of each command, by name; those of the commands in a group are one level below.
Known = Mapping[str, "frozenset[str] | Known"]
#: The setting that has the name of a command, and its key in that command's table.
_MANAGER, _ADDRESS = "manager", "address"
#: A message about an unknown setting has up to this number of those that a table may have.
_SHOWN_MAX = 12


class Written(str):
    """A value of the settings file as the text of a flag: a list with commas.

    Attributes:
        place: the key and the file, for messages.
        kind: the type that it has in the file.
    """

    __slots__ = ("kind", "place")
    place: str
    kind: type[Any]

    @classmethod
    def of(cls, value: Any, place: str) -> Self:
        """Return the text of *value*, which stands at *place*.

        Raises:
            ConfigurationError: no setting is of its type.
        """
        items = value if isinstance(value, list) else [value]
        if not all(isinstance(item, str | int | float) for item in items):
            raise ConfigurationError(
                f"{place} is not a text, a number, true or false, or a list of texts or numbers"
            )
        text = cls(",".join(str(item).lower() if isinstance(item, bool) else str(item) for item in items))
        text.place, text.kind = place, type(value)
        return text

    def misfit(self, *, several: bool) -> str:
        """Return why an option cannot have a value of its type; "" if it can. It may take *several*."""
        if self.kind is bool:
            return f"{self} is not a text or a number"
        is_many = self.kind is list and "," in self
        return "it is a list and takes one value" if is_many and not several else ""


@dataclass(frozen=True, slots=True)
class _Table:
    """A table of the settings file: the name of the file, and its own with a dot at its end."""

    file: Path
    path: str = ""

    def place(self, key: str) -> str:
        """Return where *key* stands."""
        return f"{self.path}{key} in the settings file {self.file}"

    def takes(self, allowed: frozenset[str], kind: str) -> str:
        """Return what is *allowed* here, or how to see it if that is much."""
        name = self.path.rstrip(".")
        if len(allowed) <= _SHOWN_MAX:
            return f"{f'[{name}]' if name else 'the file'} takes the {kind}s {', '.join(sorted(allowed))}"
        if kind == "table":
            return "`svc --help` shows the commands, which may have tables"
        return f"`svc {name.replace('.', ' ') or 'COMMAND'} --help` shows the settings of that command"

    def inner(self, name: str) -> _Table:
        """Return a table in this one."""
        return _Table(self.file, f"{self.path}{name}.")


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


def config_defaults(config: Mapping[str, Any], known: Known, file: Path | None = None) -> dict[str, Any]:
    """Return the defaults of every command: its own table overrides the keys at the top of the *file*.

    A key at the top, such as `manager`, is for every command that has this setting. A key in a table,
    such as `[worker]` or `[jobs.list]`, is for that command. TOML allows no key beside a table of the same
    name, so the key `address` in the table `[manager]` is the same as `manager` at the top.

    Raises:
        ConfigurationError: a key is not a setting; the message has the most similar one. Or its value is of a
            type that no setting has.
    """
    table, top = config.get(_MANAGER), _Table(file or CONFIG_FILE)
    if isinstance(table, dict) and _ADDRESS in table:
        rest = {key: value for key, value in table.items() if key != _ADDRESS}
        place = top.inner(_MANAGER).place(_ADDRESS)
        shared = {_MANAGER: Written.of(table[_ADDRESS], place)}
        return _defaults({**config, _MANAGER: rest}, known, shared, top)
    return _defaults(config, known, {}, top)


def written_values(context: Any) -> dict[str, Written]:
    """Return the values that a command has from the settings file, by the setting's name.

    Args:
        context: typer's context of the command.
    """
    defaults = context.default_map if context is not None else None
    return {
        name: value
        for name, value in (defaults or {}).items()
        if isinstance(value, Written) and _source(context, name) == "DEFAULT_MAP"
    }


def _source(context: Any, name: str) -> str:
    """Return where typer has the value of an option from; "" if an error came before it was read."""
    source = context.get_parameter_source(name)
    return source.name if source else ""


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
    table: Mapping[str, Any], known: frozenset[str] | Known, inherited: Mapping[str, Any], at: _Table
) -> dict[str, Any]:
    """Return the defaults of a command or of a group's commands, from its *table* and *inherited* keys."""
    names, inner = _names(known), known if isinstance(known, Mapping) else {}
    tables = {
        key: value
        for key, value in table.items()
        if isinstance(value, dict) and inner and (key in inner or key not in names)
    }
    _check(tables, frozenset(inner), at, "table")
    rest = {key.replace("-", "_"): value for key, value in table.items() if key not in tables}
    _check(rest, names, at, "setting", frozenset(inner))
    shared = {**inherited, **{key: Written.of(value, at.place(key)) for key, value in rest.items()}}
    if inner:
        return {
            name: _defaults(tables.get(name, {}), deeper, shared, at.inner(name))
            for name, deeper in inner.items()
        }
    return {key: value for key, value in shared.items() if key in names}


def _check(
    found: Mapping[str, Any],
    allowed: frozenset[str],
    at: _Table,
    kind: str,
    commands: frozenset[str] = frozenset(),
) -> None:
    """Check the keys of a table; *commands* are the names that a table has, and no value.

    Raises:
        ConfigurationError: one is not *allowed*.
    """
    for key in found:
        if key in allowed:
            continue
        if key in commands:
            raise ConfigurationError(f"{at.place(key)} is a command; write a table [{at.path}{key}]")
        import difflib

        near = difflib.get_close_matches(key, sorted(allowed), n=1, cutoff=0.5)
        hint = f"; the nearest {kind} is {at.path}{near[0]}" if near else ""
        unknown = f"the settings file {at.file} has an unknown {kind} {at.path}{key}"
        raise ConfigurationError(f"{unknown}{hint}; {at.takes(allowed, kind)}")


def _names(known: frozenset[str] | Known) -> frozenset[str]:
    """Return the settings of a command, or of all commands of a group."""
    if isinstance(known, Mapping):
        return frozenset().union(*map(_names, known.values()))
    return known
