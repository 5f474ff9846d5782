"""Files as arguments (`svc submit --input NAME=@FILE`) and for a result (`svc results --output FILE`)."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from svc.cli.children import ended_by_signals
from svc.cli.input import STDIN, opened
from svc.cli.output import json_text
from svc.domain.limits import BODY_BYTES_MAX
from svc.errors import ConfigurationError, JobTooLarge
from svc.large import LARGE_FROM, FileBytes

#: The name of the standard output.
STDOUT = "-"


def inputs(texts: Iterable[str], taken: Collection[str]) -> dict[str, bytes | FileBytes]:
    """Return the content of files by the names of their arguments, which are none of *taken*.

    A file that is large is not read yet: it may travel in pieces.

    Raises:
        ConfigurationError: a text is not `NAME=@FILE`, a name comes twice, or a file cannot be read.
        JobTooLarge: no message could carry what stdin, or another source that is no file, has.
    """
    found: dict[str, bytes | FileBytes] = {}
    sources: set[str] = set()
    for text in texts:
        name, equals, source = text.partition("=@")
        if not (name.isidentifier() and equals and source):
            raise ConfigurationError(f"--input is NAME=@FILE, such as image=@photo.jpg, not {text!r:.80}")
        if name in found or name in taken:
            raise ConfigurationError(f"the argument {name} is given twice")
        if source == STDIN and source in sources:
            raise ConfigurationError("only one --input can be stdin")
        sources.add(source)
        found[name] = _content(name, source)
    return found


def _content(name: str, source: str) -> bytes | FileBytes:
    content = bytearray()
    try:
        with opened(source) as file:
            found = os.fstat(file)
            if source != STDIN and stat.S_ISREG(found.st_mode) and found.st_size >= LARGE_FROM:
                return FileBytes(source)
            while part := os.read(file, 1 << 20):
                content += part
                if len(content) > BODY_BYTES_MAX:
                    raise JobTooLarge(
                        f"argument {name}: {source} has more than {BODY_BYTES_MAX} bytes, and no message "
                        "carries so many; name a file, or give the task a path that it can read"
                    )
    except OSError as error:
        raise ConfigurationError(f"{source} cannot be read: {error.strerror or error}") from None
    return bytes(content)


def as_bytes(value: Any) -> bytes:
    """Return a result as the content of a file: bytes as they are, text as UTF-8, other values as JSON."""
    if isinstance(value, bytes | bytearray):
        return bytes(value)
    return value.encode() if isinstance(value, str) else json_text(value).encode() + b"\n"


def check_target(path: str) -> None:
    """See that a file can be written at *path*, before any waiting.

    Raises:
        ConfigurationError: *path* is a directory, or its directory is missing or read-only.
    """
    if path == STDOUT:
        return
    target = Path(path)
    if target.is_dir():
        raise ConfigurationError(f"{path} is a directory; name a file for the result")
    if not target.parent.is_dir():
        raise ConfigurationError(f"{path} cannot be written: there is no directory {target.parent}")
    place = target.parent if _is_replaced(target) else target
    if not os.access(place, os.W_OK):
        raise ConfigurationError(f"{path} cannot be written: there is no permission")


def save(path: str, content: bytes) -> None:
    """Write *content* to the file *path*, whole or not at all; `-` is stdout.

    Raises:
        ConfigurationError: it cannot be written.
    """
    try:
        if path == STDOUT:
            _write_all(1, content)
        elif _is_replaced(Path(path)):
            _replace(Path(path), (content,))
        else:
            with open(path, "wb", buffering=0) as file:  # noqa: PTH123  # a device or a pipe
                _write_all(file.fileno(), content)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror or error}") from None


def save_pieces(path: str, pieces: Iterable[bytes]) -> None:
    """Write *pieces* to the file *path* one after the other; as `save`."""
    target = Path(path)
    try:
        if path != STDOUT and _is_replaced(target):
            _replace(target, pieces)
            return
        descriptor = 1 if path == STDOUT else os.open(path, os.O_WRONLY)
        try:
            for piece in pieces:
                _write_all(descriptor, piece)
        finally:
            if descriptor != 1:
                os.close(descriptor)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror or error}") from None


def _is_replaced(target: Path) -> bool:
    """Return whether another file can take the place of *target*: it is a file, or there is none."""
    try:
        return stat.S_ISREG(target.lstat().st_mode)
    except FileNotFoundError:
        return True


def _replace(target: Path, pieces: Iterable[bytes]) -> None:
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name[:100]}.", dir=target.parent)
    try:
        with ended_by_signals(), open(descriptor, "wb") as file:  # noqa: PTH123  # a descriptor
            file.writelines(pieces)
        Path(name).chmod(_mode(target))
        os.replace(name, target)  # noqa: PTH105
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _mode(target: Path) -> int:
    """Return the permissions of *target*, or those of a new file."""
    if target.exists():
        return stat.S_IMODE(target.stat().st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


def _write_all(descriptor: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]
