"""The texts of an error that a task has raised, as they can be sent: type, message and traceback."""

from __future__ import annotations

import itertools
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from svc.domain.field_bounds import MESSAGE_MAX, TRACEBACK_MAX
from svc.domain.names import shown_name

#: Characters that are kept of the beginning of a traceback; the rest that is kept is its end.
_TRACEBACK_HEAD = 2048
#: Of a deeper traceback, so many frames of its beginning and of its end are kept.
_FIRST_FRAMES, _LAST_FRAMES = 5, 200
_HEADER = "Traceback (most recent call last):\n"
_OURS = ("svc.worker.", "svc.codec", "svc.callables")


def message_of(error: BaseException) -> str:
    """Return the message of *error*, shortened."""
    try:
        return _sendable(str(error))[:MESSAGE_MAX]
    except BaseException:  # noqa: BLE001 - the `__str__` of a task's exception may do anything
        return f"<the message of {type_name_of(error)} cannot be shown>"


def type_name_of(error: BaseException) -> str:
    """Return the name of the class of *error*, as a name is shown."""
    return shown_name(type(error).__name__)


def traceback_of(error: BaseException | None) -> str:
    """Return the traceback of *error* from the first frame outside svc, or "" for None."""
    if error is None:
        return ""
    try:
        lines = _lines_of(error, _beyond_ours(error.__traceback__))
    except BaseException:  # noqa: BLE001 - as for the message
        return ""
    text = _sendable("".join(lines))
    if len(text) <= TRACEBACK_MAX:
        return text
    tail = TRACEBACK_MAX - _TRACEBACK_HEAD
    cut = f"\n… {len(text) - TRACEBACK_MAX} characters left out …\n"
    return text[:_TRACEBACK_HEAD] + cut + text[-tail + len(cut) :]


def _lines_of(error: BaseException, frames: TracebackType | None) -> list[str]:
    """Return the lines of a traceback; of very many *frames*, each of which takes a while, not all."""
    count = sum(1 for _ in traceback.walk_tb(frames))
    left_out, last = max(0, count - _FIRST_FRAMES - _LAST_FRAMES), frames
    if left_out:
        last = next(itertools.islice(_from_each(frames), count - _LAST_FRAMES, None))
    # The errors that it was raised for may be as deep.
    limit = -(_FIRST_FRAMES + _LAST_FRAMES)
    lines = list(traceback.TracebackException(type(error), error, last, limit=limit).format())
    if left_out and _HEADER in lines:
        begin = len(lines) - lines[::-1].index(_HEADER)
        first = traceback.format_tb(frames, limit=_FIRST_FRAMES)
        lines[begin:begin] = [*first, f"  … {left_out} frames left out …\n"]
    return lines


def _from_each(frames: TracebackType | None) -> Iterator[TracebackType]:
    """Yield *frames*, without the first, without the first two, and so on."""
    while frames is not None:
        yield frames
        frames = frames.tb_next


def _beyond_ours(frames: TracebackType | None) -> TracebackType | None:
    while frames is not None and _is_ours(frames.tb_frame.f_globals):
        frames = frames.tb_next
    return frames


def _is_ours(names: dict[str, Any]) -> bool:
    return str(names.get("__name__", "")).startswith(_OURS)


def _sendable(text: str) -> str:
    """Return *text* without lone surrogates (as in undecodable file names), which no wire format supports."""
    return text.encode("utf-8", "backslashreplace").decode()
