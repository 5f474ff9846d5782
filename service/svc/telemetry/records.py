"""Our own processors of log records.

Each takes and returns a structlog event dictionary, except `BoundedRenderer`, which ends the chain and
returns text.
"""

from __future__ import annotations

import functools
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping

import msgspec
import structlog
from structlog.typing import EventDict, WrappedLogger

from svc.printable import printable_json, printable_line, printable_text

#: The most bytes of one record with its newline. POSIX writes up to PIPE_BUF (4096 on Linux) in one piece, so
#: lines of processes that share a pipe are never mixed.
RECORD_BYTES_MAX = 4096
#: The text that replaces a secret.
REDACTED = "[redacted]"
#: Seconds between two records of an event that repeats.
REPEAT_SECONDS = 30.0

_SECRET_NAMES = (
    "authkey",
    "credential",
    "credentials",
    "passphrase",
    "passwd",
    "password",
    "secret",
    "token",
)
_SECRET_ENDINGS = tuple(f"_{name}" for name in _SECRET_NAMES)
_FIRST_FIELDS = ("timestamp", "level", "event")
_SHORTEST_FIELD = 64
#: Fields that structlog's console renderer puts below the record.
_BLOCKS = ("exception", "stack")
#: The start of each of their lines.
_INDENT = "    "

Renderer = Callable[[WrappedLogger, str, EventDict], str]


class DropRepeats:
    """Lets the first record of each of *kinds* pass, and then at most one in `REPEAT_SECONDS`.

    A record that passes says how many before it were `suppressed`. Records are held back here so that the
    modules that log them do not depend on telemetry. Debug records are not held back.
    """

    def __init__(self, kinds: Collection[str], clock: Callable[[], float] = time.monotonic) -> None:
        """Hold back records of the events *kinds*; *clock* returns seconds that never go back."""
        self._kinds = frozenset(kinds)
        self._clock = clock
        self._shown: dict[str, float] = {}
        self._suppressed: Counter[str] = Counter()

    def __call__(self, _logger: WrappedLogger, method: str, record: EventDict) -> EventDict:
        """Return *record*, or raise `structlog.DropEvent` to hold it back."""
        kind = record["event"]
        if kind not in self._kinds or method == "debug":
            return record
        now = self._clock()
        if now - self._shown.get(kind, -math.inf) < REPEAT_SECONDS:
            self._suppressed[kind] += 1
            raise structlog.DropEvent
        self._shown[kind] = now
        if suppressed := self._suppressed.pop(kind, 0):
            record["suppressed"] = suppressed
        return record


class AddTime:
    """Adds the time in UTC as `timestamp`.

    The text of a second is kept. `datetime` takes some 40 µs for it if the caches are cold, as after a sleep.
    """

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        """Read the time from *clock*, in nanoseconds since 1970."""
        self._clock = clock
        #: The last second, and its text.
        self._last = (-1, "")

    def __call__(self, _logger: WrappedLogger, _method: str, record: EventDict) -> EventDict:
        """Add the time to *record*."""
        second, rest = divmod(self._clock(), 1_000_000_000)
        last = self._last
        if last[0] != second:
            last = self._last = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        record["timestamp"] = f"{last[1]}.{rest // 1000:06d}Z"
        return record


def add_fields(
    fields: Mapping[str, str], _logger: WrappedLogger, _method: str, record: EventDict
) -> EventDict:
    """Add *fields*, which name the writer, to a record unless it has them; for use with `partial`."""
    return {**fields, **record}


def redact(_logger: WrappedLogger, _method: str, record: EventDict) -> EventDict:
    """Replace values under the name of a secret, also inside mappings.

    Numbers stay: the fencing `token` of a lease is a number, and no secret of ours is.
    """
    if _have_secret(tuple(record)) or dict in map(type, record.values()):
        for name, value in record.items():
            record[name] = _redacted(name, value)
    return record


def _redacted(name: object, value: object) -> object:
    if isinstance(value, dict):
        return {inner: _redacted(inner, content) for inner, content in value.items()}
    if value is None or isinstance(value, (int, float)) or not _is_secret(str(name)):
        return value
    return REDACTED


@functools.lru_cache(maxsize=1024)
def _have_secret(names: tuple[str, ...]) -> bool:
    """Return whether one of the *names* of a record is that of a secret: few kinds of records make most."""
    return any(map(_is_secret, names))


@functools.lru_cache(maxsize=1024)
def _is_secret(name: str) -> bool:
    return name.lower().endswith(_SECRET_ENDINGS) or name.lower() in _SECRET_NAMES


def name_foreign(_logger: WrappedLogger, _method: str, record: EventDict) -> EventDict:
    """Turn a record of the `logging` module into the event `log_message`, with its text as `message`."""
    record["message"] = record["event"]
    record["event"] = "log_message"
    return record


def to_json(_logger: WrappedLogger, _method: str, record: EventDict) -> str:
    """Render *record* as one line of JSON; a value that JSON cannot hold becomes its `repr`. Never raises."""
    ordered = {**{name: record[name] for name in _FIRST_FIELDS if name in record}, **record}
    try:
        return printable_json(_encoder.encode(ordered).decode())
    except Exception:  # noqa: BLE001 - task code may log any value; its record must not be lost
        return json.dumps({str(name): _plain(value) for name, value in ordered.items()})


def printable(_logger: WrappedLogger, _method: str, record: EventDict) -> EventDict:
    """Make *record* safe for a terminal: a field is part of one line, a traceback is an indented block.

    So neither a job's name nor the message of its error can look like another record.
    """
    return {
        printable_line(_described(name)): _block(value) if name in _BLOCKS else _line(value)
        for name, value in record.items()
    }


def _line(value: object) -> object:
    return value if isinstance(value, (int, float, type(None))) else printable_line(_described(value))


def _block(value: object) -> object:
    return _INDENT + printable_text(_described(value)).replace("\n", f"\n{_INDENT}")


def _plain(value: object) -> object:
    return value if isinstance(value, (int, bool, type(None))) else _described(value)


def _described(value: object) -> str:
    if isinstance(value, str):
        return value
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - a broken __repr__ in task code must not lose the record
        return f"<{type(value).__name__}: its repr failed>"


_encoder = msgspec.json.Encoder(enc_hook=_described)


class BoundedRenderer:
    """Renders with *renderer* in at most *limit* bytes, newline included; cuts the longest field first.

    A field that was cut ends in `…[+N]`, with N missing characters. A record of too many short fields keeps
    its time, level and event, and `dropped_fields` is the number of dropped fields.
    """

    def __init__(self, renderer: Renderer, limit: int = RECORD_BYTES_MAX) -> None:
        self._renderer = renderer
        self._limit = limit - 1

    def __call__(self, logger: WrappedLogger, method: str, record: EventDict) -> str:
        """Return the text of *record*, without a newline at its end."""
        text = self._render(logger, method, record)
        shown: EventDict = dict(record)
        whole: dict[str, str] = {}
        while (excess := _size(text) - self._limit) > 0:
            longest = max(shown, key=lambda name: len(_described(shown[name])))
            if len(_described(shown[longest])) <= _SHORTEST_FIELD:
                shown = _without_details(shown)
            else:
                original = whole.setdefault(longest, _described(shown[longest]))
                shown[longest] = _shortened(original, len(_described(shown[longest])), excess)
            text = self._render(logger, method, shown)
        return text

    def _render(self, logger: WrappedLogger, method: str, record: EventDict) -> str:
        # A copy, since structlog's console renderer changes its dictionary.
        return self._renderer(logger, method, dict(record))


def _size(text: str) -> int:
    return len(text.encode(errors="backslashreplace"))


def _without_details(record: EventDict) -> EventDict:
    kept = {name: record[name] for name in _FIRST_FIELDS if name in record}
    return {**kept, "dropped_fields": len(record) - len(kept)}


def _shortened(original: str, shown: int, excess: int) -> str:
    # Keep at least half: a character is 1 to 12 bytes when escaped, and the next round may cut further.
    kept = max(shown - excess - 16, shown // 2, 16)
    return f"{original[:kept]}…[+{len(original) - kept}]"
