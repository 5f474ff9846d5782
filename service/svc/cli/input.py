"""The input of commands: files of jobs as NDJSON and files of ids, that `--from` names; one entry a line.

They are read as they come, and errors name the line's number.
"""

from __future__ import annotations

import os
import re
import select
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol

import msgspec

from svc.client.specs import JobSpec, Options
from svc.domain.job import parse_job_id
from svc.domain.names import did_you_mean
from svc.errors import BadRequest, ConfigurationError, ServiceError, UnknownJob
from svc.wire import MESSAGE_BYTES_MAX

#: The name of the standard input.
STDIN = "-"
#: Bytes read at a time.
CHUNK = 1 << 20
#: Seconds without input after which the jobs read so far are submitted.
PAUSE_SECONDS = 0.05
_UNKNOWN_FIELD = re.compile("unknown field `(.*)`")


@contextmanager
def opened(source: str) -> Iterator[int]:
    """Yield the file descriptor of the file *source*, or of stdin for `-`.

    Raises:
        ConfigurationError: it cannot be read, or it is a directory.
    """
    stdin = source == STDIN
    try:
        file = open(0 if stdin else source, "rb", buffering=0, closefd=not stdin)  # noqa: SIM115 - `with` below
    except IsADirectoryError:
        raise ConfigurationError(f"{_shown(source)} is a directory; name a file") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", "") or str(error)
        raise ConfigurationError(f"{_shown(source)} cannot be read: {reason}") from None
    with file:
        yield file.fileno()


def ids_of(source: str) -> list[str]:
    """Return the ids of jobs in *source*, each once: the first word of each line that has one.

    So it reads the output of `svc submit --from`, and also that of `svc results`.

    Raises:
        ConfigurationError: *source* cannot be read.
        UnknownJob: a line does not begin with an id; the message has its number.
    """
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


def _shown(source: str) -> str:
    return "stdin" if source == STDIN else source


class JobLine(msgspec.Struct, forbid_unknown_fields=True):
    """The fields of one line; the flags replace missing ones."""

    task: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    queue: str | None = None
    priority: int | None = None
    delay: float | None = None
    key: str | None = None
    retries: int | None = None
    backoff: float | None = None
    timeout: float | None = None
    soft_timeout: float | None = None
    max_rss: int | None = None

    def spec(self, base: Options) -> JobSpec:
        """Return the job; *base* has the options that the line does not name."""
        own = {name: value for name in _TERMS if (value := getattr(self, name)) is not None}
        return JobSpec(self.task, self.args, self.kwargs, replace(base, **own) if own else base)


_TERMS = (*("queue", "priority", "delay", "key", "retries", "backoff", "timeout", "soft_timeout", "max_rss"),)


class BadLine(BadRequest):
    """A line of the input is not a job."""

    code = "bad_line"


class NumberedJobs(Protocol):
    """The jobs in an open file, one a line.

    Attributes:
        numbers: the line numbers, from 1, of the jobs that were yielded and not yet answered.
    """

    numbers: deque[int]

    def __iter__(self) -> Iterator[JobSpec | ServiceError | None]:
        """Yield a job, or the error of a line; None if the input pauses."""


class JobLines(NumberedJobs):
    """The jobs in an open file as NDJSON; blank lines are skipped."""

    def __init__(self, file: int, base: Options) -> None:
        """Read the file descriptor *file*; *base* has the options that a line does not name."""
        self.numbers: deque[int] = deque()
        self._file = file
        self._base = base

    def __iter__(self) -> Iterator[JobSpec | ServiceError | None]:
        """Yield a job, or the error of a line; None if the input pauses."""
        decoder = msgspec.json.Decoder(JobLine)
        number = 0
        for line in lines_of(self._file):
            if line is None:
                yield None
                continue
            number += 1
            if not line.isspace() and line:
                self.numbers.append(number)
                yield _job(decoder, line, self._base)


def _job(decoder: msgspec.json.Decoder[JobLine], line: bytes, base: Options) -> JobSpec | ServiceError:
    if len(line) > MESSAGE_BYTES_MAX:
        return BadLine(f"the line is longer than {MESSAGE_BYTES_MAX} bytes")
    try:
        return decoder.decode(line).spec(base)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return BadLine(
            f'not a job: {error}{_field_meant(error)}; a job is {{"task": "module:function", "args": [1, 2]}}'
        )
    except ServiceError as error:
        return error


def _field_meant(error: Exception) -> str:
    """Return the end of a sentence that names the field that is most like the unknown one in *error*."""
    unknown = _UNKNOWN_FIELD.search(str(error))
    return did_you_mean(unknown[1], JobLine.__struct_fields__) if unknown else ""


def _pauses(file: int) -> bool:
    """Return whether no more input comes for now, or if that is unknown: Windows tells it of sockets only."""
    try:
        return not select.select([file], [], [], PAUSE_SECONDS)[0]
    except OSError:
        return True


def lines_of(file: int, end: bytes = b"\n") -> Iterator[bytes | None]:
    """Yield the lines of *file* without their *end*, and None if the input pauses.

    Of a line that is longer than a message may be, only a part is yielded, which is long enough to show that.
    """
    rest = bytearray()
    while chunk := os.read(file, CHUNK):
        head, newline, tail = chunk.rpartition(end)
        if newline:
            yield from (bytes(rest) + head).split(end)
            rest = bytearray(tail)
        elif len(rest) <= MESSAGE_BYTES_MAX:
            rest += chunk
        if _pauses(file):
            yield None
    if rest:
        yield bytes(rest)
