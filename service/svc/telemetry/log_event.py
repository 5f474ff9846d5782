"""One kind of log record, as the catalogue of log events describes it."""

from __future__ import annotations

from dataclasses import dataclass, field

#: The levels of an event that is always logged at the same one.
DEBUG, INFO, WARNING, ERROR = ("debug",), ("info",), ("warning",), ("error",)


@dataclass(frozen=True, slots=True)
class LogEvent:
    """One kind of log record.

    Attributes:
        name: the value of the record's `event`, in snake_case.
        levels: the levels at which it is logged.
        meaning: one sentence.
        fields: its fields, without the common ones.
        repeats: whether at most one in 30 s is shown, with the number `suppressed` since the one before.
    """

    name: str
    levels: tuple[str, ...]
    meaning: str
    fields: tuple[str, ...] = field(default=())
    repeats: bool = False
