"""All output of the command line. Data goes to stdout, all else to stderr.

Text may come from jobs, workers and managers, so a terminal gets it through `printable`. Results, metrics and
paths are exact if stdout is not a terminal. All other text is the same everywhere.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self, TextIO, TypeVar

from svc.cli.bottom_line import BOTTOM
from svc.config_file import written_values
from svc.errors import ConfigurationError, ServiceError
from svc.printable import printable_json, printable_line, printable_text

T = TypeVar("T")
#: The last second of the year 9999, as a Unix time.
_LAST_MOMENT = 253_402_300_799.0
#: A column of a table: its title, and a function for its text of an item.
Column = tuple[str, Callable[[T], str]]

#: Advice about an error, if its message has none.
HINTS = {
    "unknown_job": "`svc jobs list` shows the jobs that are known",
    "unknown_attempt": "`svc jobs show ID` shows the attempts",
    "unknown_task": "`svc workers --json` shows the tasks that workers know",
    "stream_restarted": "`svc results ID --stream` reads them",
    "job_failed": "`svc jobs show ID` tells more",
    "result_timeout": "`svc results ID` waits again",
}


def json_text(document: object, *, indent: bool = False) -> str:
    """Return *document* as JSON, on one line or indented; values that JSON does not have as their `repr`.

    Unprintable characters are escaped, so the text is exact and safe to show. Numbers that JSON does not have
    are the texts "NaN", "Infinity" and "-Infinity".
    """
    import msgspec

    try:
        encoded = msgspec.json.encode(document, enc_hook=repr)
        if b"null" in encoded:  # msgspec writes that for them, too
            encoded = msgspec.json.encode(_finite(document), enc_hook=repr)
    except UnicodeEncodeError:
        return _json_of_halves(document, indent=indent)
    return printable_json((msgspec.json.format(encoded, indent=2) if indent else encoded).decode())


def _finite(value: Any) -> Any:
    """Return *value* with texts in place of numbers that JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_finite(each) for each in value]
    return value


def _json_of_halves(document: object, *, indent: bool) -> str:
    """Return JSON of text with lone surrogates: bytes of an argument or a path that are not valid text."""
    import json

    import msgspec

    plain = msgspec.to_builtins(_finite(document), enc_hook=repr)
    return json.dumps(plain, indent=2) if indent else json.dumps(plain, separators=(",", ":"))


def write(text: str) -> None:
    """Print one line of data for people; no character in *text* can begin another line."""
    _put(sys.stdout, printable_line(text))


def write_exact(text: str) -> None:
    """Print data for programs: unchanged, but made safe to show on a terminal."""
    _put(sys.stdout, printable_text(text) if sys.stdout.isatty() else text)


def write_json(document: object) -> None:
    """Print the single document of `--json`."""
    _put(sys.stdout, json_text(document, indent=True))


def write_ndjson(documents: Iterable[object]) -> None:
    """Print one document on each line."""
    for document in documents:
        _put(sys.stdout, json_text(document))


def tell(text: str) -> None:
    """Print a one-line message for the person at the terminal."""
    _put(sys.stderr, printable_line(text))


def tell_lines(text: str) -> None:
    """Print a message of several lines for the person at the terminal."""
    _put(sys.stderr, printable_text(text))


def _put(stream: TextIO, text: str) -> None:
    with BOTTOM.above(stream):
        try:
            stream.write(text + "\n")
        except UnicodeEncodeError:
            # The stream's encoding lacks a character: a lone surrogate, or one that an old terminal does not
            # have.
            known = text.encode(stream.encoding, "backslashreplace").decode(stream.encoding)
            stream.write(known + "\n")


class Printer:
    """Prints items as they come: as text, as NDJSON, or as one JSON document, of which it keeps one item."""

    def __init__(self, *, json: bool, ndjson: bool, single: bool = False) -> None:
        """Choose the format; with *single* the only item is the document, and not a list.

        On a terminal each item of several is one line, so that none looks like two; a single one may have
        more.
        """
        self._json = json
        self._ndjson = ndjson
        self._single = single
        #: The last item of the JSON document, which is printed with what follows it.
        self._pending: str | None = None
        self._terminal = sys.stdout.isatty()

    @property
    def text(self) -> bool:
        """Whether the output is text for people."""
        return not (self._json or self._ndjson)

    def item(self, document: object, text: str, name: str = "") -> None:
        """Print one item; in text its *name*, if it has one, and a tab come first."""
        if self._json:
            self._add(json_text(document, indent=True))
        elif self._ndjson:
            _put(sys.stdout, json_text(document))
        else:
            shown = self._shown(text)
            _put(sys.stdout, f"{self._shown(name)}\t{shown}" if name else shown)

    def _add(self, item: str) -> None:
        """Go on with the JSON document."""
        if self._single:
            self._pending = item
            return
        _put(sys.stdout, "[" if self._pending is None else f"{self._pending},")
        self._pending = "  " + item.replace("\n", "\n  ")

    def _shown(self, text: str) -> str:
        if not self._terminal:
            return text
        return printable_text(text) if self._single else printable_line(text)

    def flush(self) -> None:
        """Pass all output to the reader at once."""
        sys.stdout.flush()

    def __enter__(self) -> Self:
        """Return the printer."""
        return self

    def __exit__(self, kind: object, *exception: object) -> None:
        """End the JSON document, if it was asked for; after an error only if it has items."""
        if not self._json:
            return
        if self._pending is not None:
            _put(sys.stdout, self._pending if self._single else f"{self._pending}\n]")
        elif not (kind or self._single):
            _put(sys.stdout, "[]")


def _hint(error: ServiceError) -> str:
    """Return the next step about *error*, with the job's id if it is about one."""
    return HINTS.get(error.code, "").replace("ID", getattr(error, "job_id", "") or "ID")


def report(error: ServiceError, *, as_json: bool, **where: object) -> None:
    """Print *error* on stderr; *where* names its place, such as `line=3`."""
    hint = _hint(error)
    if as_json:
        document = {"code": error.code, "message": str(error), "hint": hint, "retryable": error.retryable}
        ids = {"job_ids": found} if (found := getattr(error, "job_ids", ())) else {}
        tell(json_text({"error": document | ids | where}))
        return
    place = "".join(f"{name} {value}: " for name, value in where.items())
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    said, rest = str(error), ""
    if isinstance(error, ConfigurationError):
        # Only this host can have written the lines behind the first one: frames of a traceback.
        said, _, rest = said.partition("\n")
    tell(f"svc: {place}{said}{notes}" + (f" - {hint}" if hint else ""))
    if rest:
        tell_lines(rest)


def report_usage(error: Any, *, as_json: bool) -> None:
    """Print the error in the command line or in a setting; for a group without a command print its help."""
    context = getattr(error, "ctx", None)
    _name_place_in_file(error, context)
    message = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":
        tell_lines(message)
        return
    hint = f"try `{context.command_path} --help`" if context else ""
    if context and _may_be_keyword(context.command, getattr(error, "option_name", "")):
        hint = """a task gets its keyword arguments by --kwargs '{"NAME": VALUE}'"""
    if context and _may_be_argument(context.command, getattr(error, "option_name", "")):
        hint = (
            "put -- before arguments that begin with a dash, and options before that: "
            "`svc submit --wait mytasks:add -- -1 2`"
        )
    if as_json:
        tell(json_text({"error": {"code": "usage", "message": message, "hint": hint, "retryable": False}}))
        return
    tell(f"svc: {' '.join(message.split()).rstrip('.')}" + (f" - {hint}" if hint else ""))


def _name_place_in_file(error: Any, context: Any) -> None:
    """Let the message name the key in the settings file and not the flag, if the bad value stands there."""
    option = getattr(error, "param", None)
    written = written_values(context).get(getattr(option, "name", ""))
    if option is None or written is None:
        return
    error.param_hint = written.place
    if option.is_flag:
        error.message = f"{written!r} is neither true nor false"


def _may_be_keyword(command: Any, option: str) -> bool:
    """Return whether an unknown option of *command* may be meant as a keyword argument of a task."""
    return option.startswith("--") and any("--kwargs" in each.opts for each in command.params)


def _may_be_argument(command: Any, option: str) -> bool:
    """Return whether an unknown option of *command* may be a negative number, or another argument."""
    takes_any = any(each.param_type_name == "argument" and each.nargs < 0 for each in command.params)
    return takes_any and option.startswith("-") and not option.startswith("--")


def table(
    items: Sequence[T], columns: Sequence[Column[T]], empty: str, *, spare: Sequence[str] = (), note: str = ""
) -> None:
    """Print *items* as an aligned table; on stderr the message *empty* if there are none.

    A narrow terminal gets no columns of the titles *spare*, left out in this order, and a last column of the
    title *note* in several lines. Nothing else is broken, and a file gets all.
    """
    if not items:
        tell(empty)
        return
    from svc.cli.tables import lay_out

    rows = [
        [title for title, _ in columns],
        *([printable_line(cell(item)) for _, cell in columns] for item in items),
    ]
    titles, *lines = lay_out(rows, width_to_fit(), spare=spare, note=note)
    for line in (_bold(titles), *lines):
        _put(sys.stdout, line)


def width_to_fit() -> int | None:
    """Return the columns of the terminal that stdout is; None if it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _bold(text: str) -> str:
    plain = not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb" or "NO_COLOR" in os.environ
    return text if plain else f"\x1b[1m{text}\x1b[0m"


def facts(pairs: Iterable[tuple[str, str]]) -> None:
    """Print names and values below each other; those without a value are left out."""
    shown = [(name, value) for name, value in pairs if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        write(f"{name:<{width}}  {value}")


def show_items(
    items: Sequence[T], document: Callable[[T], Mapping[str, Any]], *, json: bool, ndjson: bool
) -> bool:
    """Print *items* as JSON if that was asked for; return whether it was."""
    if json:
        write_json([document(item) for item in items])
    elif ndjson:
        write_ndjson(document(item) for item in items)
    return json or ndjson


def moment(at: float | None) -> str | None:
    """Return a Unix time as RFC 3339 in UTC, with milliseconds.

    A time after the year 9999 is shown as the end of that year, because older journals may have any time.
    """
    if not at:
        return None
    at = min(at, _LAST_MOMENT)
    whole, milliseconds = divmod(round(at * 1000), 1000)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole)) + f".{milliseconds:03d}Z"


def age(at: float | None) -> str:
    """Return the time since a Unix time, for people; none if the manager's clock is ahead of this one."""
    return span(max(0.0, time.time() - at)) if at else ""


def distance(at: float) -> str:
    """Return how long ago a Unix time was, or in how long it comes, for people."""
    passed = time.time() - at
    return f"{span(passed)} ago" if passed >= 0 else f"in {span(passed)}"


def span(seconds: float) -> str:
    """Return a duration without its sign, for people: the two largest units at most."""
    seconds = min(abs(seconds), _LAST_MOMENT)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    rest = round(seconds)
    for size, unit, smaller_size, smaller in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if rest >= size:
            small = rest % size // smaller_size
            return f"{rest // size} {unit}" + (f" {small} {smaller}" if small else "")
    return f"{rest} s"


def size(count: float) -> str:
    """Return a number of bytes for people."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"
