"""Reports of the manager's own faults: one JSON file each, for a bug report, without the content of jobs.

They hold names (queues, tasks, members), numbers, and the place in the code. Of a job's content (arguments,
results, errors, keys) they hold only the length, and of an exception only the class, since its text may
repeat content.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from traceback import walk_tb
from typing import Any, Final

import msgspec

from svc.broker.broken import StateBroken
from svc.broker.host import QueueHost
from svc.domain.lifecycle import InvariantBroken
from svc.wire import RELEASE

#: The most reports that are kept; a new one replaces the oldest.
REPORTS_MAX: Final = 20
#: The most elements of a list in a request, and the most characters of a name, that a report shows.
_SHOWN_MAX: Final = 10
_NAME_MAX: Final = 200
#: Of an integer with more bits, a report shows only the size.
_BITS_MAX: Final = 64
#: Text fields of a request that are not content; of any other text, a report shows only the length.
_NAMES: Final = frozenset(
    (
        "codec",
        "consumer",
        "cause",
        "host",
        "id",
        "ids",
        "name",
        "origin",
        "queue",
        "queues",
        "release",
        "role",
        "state",
        "task",
        "tasks",
        "worker",
    )
)


class FaultReports:
    """The directory of reports. It is made, for this user alone, with the first report."""

    def __init__(self, directory: Path, *, sqlite: str = "") -> None:
        """Keep reports in *directory*; *sqlite* is the release of SQLite, for the reports."""
        self.directory = directory
        self._sqlite = sqlite

    def write(self, report: Mapping[str, Any]) -> Path:
        """Write a report; return its file.

        Raises:
            OSError: the directory or the file cannot be written.
        """
        now = datetime.now(UTC)
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.directory / f"{now:%Y%m%dT%H%M%S.%fZ}-{report['place']}.json"
        text = json.dumps({"time": now.isoformat(), **report, "sqlite": self._sqlite}, indent=1, default=repr)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text + "\n")
        for old in sorted(self.directory.glob("*.json"))[:-REPORTS_MAX]:
            old.unlink(missing_ok=True)
        return path


def describe(broken: StateBroken, host: QueueHost) -> dict[str, Any]:
    """Return the report of *broken*; call it while *host* still has the broken state."""
    command = broken.command
    return {
        "release": RELEASE,
        "python": sys.version,
        "platform": platform.platform(),
        "place": str(broken.place),
        "errors": [_described(error) for error in _chain(broken.error)],
        "command": None if command is None else {"type": type(command).__name__, **_fields(command)},
        "role": broken.member.role if broken.member is not None else "",
        **host.figures(),
    }


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _described(error: BaseException) -> dict[str, Any]:
    frames = [
        f"{frame.f_code.co_filename}:{line} {frame.f_code.co_name}"
        for frame, line in walk_tb(error.__traceback__)
    ]
    described: dict[str, Any] = {"type": type(error).__qualname__, "at": frames}
    if isinstance(error, InvariantBroken):
        described["message"] = str(error)  # made of ids, states and numbers
    return described


def _fields(value: msgspec.Struct) -> dict[str, Any]:
    return {name: _shown(name, getattr(value, name)) for name in value.__struct_fields__}


def _shown(name: str, value: object) -> object:
    """Return the value that a report shows for the field *name*, or for an element of it."""
    match value:
        case None | bool() | float():
            return value
        case int():
            return value if value.bit_length() <= _BITS_MAX else f"number of {value.bit_length()} bits"
        case str():
            return value[:_NAME_MAX] if name in _NAMES else f"text of {len(value)} characters"
        case bytes() | bytearray() | memoryview():
            return f"{len(value)} bytes"
        case msgspec.Struct():
            return _fields(value)
        case Sequence():
            shown = [_shown(name, each) for each in value[:_SHOWN_MAX]]
            return shown if len(value) <= _SHOWN_MAX else [*shown, f"and {len(value) - _SHOWN_MAX} more"]
    return type(value).__name__
