"""The input of commands: the files of jobs and ids that `--from` names."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from svc.errors import ConfigurationError, UnknownJob

#: The name of the standard input.
STDIN = "-"


@contextmanager
def opened(source: str) -> Iterator[int]:
    """Yield the file descriptor of the file *source*, or of stdin for `-`.

    Raises:
        ConfigurationError: it cannot be read, or it is a directory.
    """
    file = 0 if source == STDIN else _opened(source)
    try:
        _check(file, source)
        yield file
    finally:
        if file:
            os.close(file)


def ids_of(source: str) -> list[str]:
    """Return the ids of jobs in *source*, each once: the first word of each line that has one.

    So it reads the output of `svc submit --from`, and also that of `svc results`.

    Raises:
        ConfigurationError: *source* cannot be read.
        UnknownJob: a line does not begin with an id; the message has its number.
    """
    from svc.cli.lines import lines_of
    from svc.domain.job import parse_job_id

    found: dict[str, None] = {}
    with opened(source) as file:
        lines = (line for line in lines_of(file) if line is not None)
        for number, line in enumerate(lines, start=1):
            for word in line.split(maxsplit=1)[:1]:
                name = word.decode(errors="backslashreplace")
                try:
                    parse_job_id(name)
                except ValueError as error:
                    raise UnknownJob(f"{_shown(source)}, line {number}: {error}") from None
                found[name] = None
    return list(found)


def _opened(source: str) -> int:
    try:
        return os.open(source, os.O_RDONLY)
    except (OSError, ValueError) as error:
        raise _unreadable(source, getattr(error, "strerror", "") or str(error)) from None


def _check(file: int, source: str) -> None:
    try:
        mode = os.fstat(file).st_mode
    except OSError as error:
        raise _unreadable(source, error.strerror or "it is closed") from None
    if stat.S_ISDIR(mode):
        raise ConfigurationError(f"{_shown(source)} is a directory; name a file with one entry a line")


def _unreadable(source: str, why: str) -> ConfigurationError:
    return ConfigurationError(f"{_shown(source)} cannot be read: {why}")


def _shown(source: str) -> str:
    return "stdin" if source == STDIN else source
