"""The texts of an error that a task has raised, as they can be sent: type, message and traceback."""

from __future__ import annotations

import traceback
from types import TracebackType
from typing import Any

from svc.domain.field_bounds import MESSAGE_MAX, TRACEBACK_MAX
from svc.domain.names import shown_name

#: Characters that are kept of the beginning of a traceback; the rest that is kept is its end.
_TRACEBACK_HEAD = 2048
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
        lines = traceback.format_exception(type(error), error, _beyond_ours(error.__traceback__))
    except BaseException:  # noqa: BLE001 - as for the message
        return ""
    text = _sendable("".join(lines))
    if len(text) <= TRACEBACK_MAX:
        return text
    tail = TRACEBACK_MAX - _TRACEBACK_HEAD
    cut = f"\n… {len(text) - TRACEBACK_MAX} characters left out …\n"
    return text[:_TRACEBACK_HEAD] + cut + text[-tail + len(cut) :]


def _beyond_ours(frames: TracebackType | None) -> TracebackType | None:
    while frames is not None and _is_ours(frames.tb_frame.f_globals):
        frames = frames.tb_next
    return frames


def _is_ours(names: dict[str, Any]) -> bool:
    return str(names.get("__name__", "")).startswith(_OURS)


def _sendable(text: str) -> str:
    """Return *text* without lone surrogates (as in undecodable file names), which no wire format supports."""
    return text.encode("utf-8", "backslashreplace").decode()
