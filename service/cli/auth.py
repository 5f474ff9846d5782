"""`svc auth`: the secret that manager, workers and clients share."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Annotated

import typer

from service.cli.output import write
from service.errors import ConfigurationError, Conflict

#: Random bytes in a key, which the file holds as text.
KEY_BYTES = 32


def generate(
    output: Annotated[
        Path, typer.Option("--output", metavar="FILE", help="The file to make; it must not exist yet.")
    ] = Path("svc_authkey"),
) -> int:
    """Make a new authkey.

    It is written to a file that only you can read; the file's path is printed, never the key.
    """
    write_authkey(output)
    write(str(output))
    return 0


def write_authkey(path: Path) -> None:
    """Write a new authkey into the new file *path*, with mode 0600.

    Raises:
        Conflict: the file exists.
        ConfigurationError: it cannot be made.
    """
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Conflict(f"{path} exists and stays as it is; name another file with --output") from None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be made: {error.strerror}") from None
    with os.fdopen(file, "w", encoding="ascii") as stream:
        stream.write(secrets.token_urlsafe(KEY_BYTES) + "\n")
