"""`svc auth`: the secrets that manager, workers and clients share."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Annotated, Literal

import typer

from svc.cli.output import write_exact
from svc.errors import ConfigurationError, Conflict
from svc.key_files import ROLES

#: Random bytes in a key; the file has them as text.
KEY_BYTES = 32


def generate(
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            metavar="FILE",
            show_default="svc_authkey",
            help="The file to make, with its folder; it must not exist yet.",
        ),
    ] = None,
    role: Annotated[
        Literal["submit", "work", "read", "admin", "shell"] | None,
        typer.Option(
            "--role",
            metavar="|".join(ROLES),
            help="Rights of the key; without it, the authkey, which may do everything.",
        ),
    ] = None,
    pickle: Annotated[
        bool,
        typer.Option(
            "--pickle",
            help="A key to sign pickles with, for submitters and workers; the manager never has it.",
        ),
    ] = False,
    every: Annotated[
        Path | None,
        typer.Option("--all", metavar="DIR", help="Make a key for each role in this folder."),
    ] = None,
) -> None:
    """Make a new authkey, or keys that may do less.

    It is written to a file that only you can read; the file's path is printed, never the key. A key's
    role is told by its file's name in the folder that `svc manager --role-keys` names: submit.key, …
    """
    if every is not None:
        if output is not None or role is not None or pickle:
            raise ConfigurationError(
                "--all makes a file for each role in its folder; leave out --output, --role and --pickle"
            )
        make_folder(every)
        files = [every / f"{name}.key" for name in ROLES]
    else:
        if pickle and role is not None:
            raise ConfigurationError("a key for pickles has no role; leave out --role")
        usual = "svc_pickle_key" if pickle else "svc_authkey"
        files = [output or Path(f"{role}.key" if role else usual)]
        _check_name(files[0], role)
    for file in files:
        write_authkey(file)
        write_exact(str(file))


def _check_name(file: Path, role: str | None) -> None:
    if role is not None and file.name not in (f"{role}.key", f"{role}.key.next"):
        raise ConfigurationError(f"a key for {role!r} is found by its name: {role}.key or {role}.key.next")


def write_authkey(path: Path) -> None:
    """Write a new authkey into the new file *path*, with mode 0600; make its folder if it is missing.

    Raises:
        Conflict: the file exists.
        ConfigurationError: it cannot be made.
    """
    make_folder(path.parent)
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Conflict(f"{path} exists and stays as it is; name another file with --output") from None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be made: {error.strerror}") from None
    with os.fdopen(file, "w", encoding="ascii") as stream:
        stream.write(secrets.token_urlsafe(KEY_BYTES) + "\n")


def make_folder(path: Path) -> None:
    """Make a folder for keys, which only you can read, if there is none.

    Raises:
        ConfigurationError: it cannot be made.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"the folder {path} cannot be made: {error.strerror}") from None
