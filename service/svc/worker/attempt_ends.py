"""The ways in which a task ends its own attempt: `Retry`, `GiveUp` and `Snooze`.

They are exceptions that a task raises. They are no `ServiceError`s, so a task that catches the errors of svc
around its own calls of a client lets them through.
"""

from __future__ import annotations

import math

from svc.domain.limits import SECONDS_MAX
from svc.errors import ConfigurationError


class AttemptEnd(Exception):
    """Base of the exceptions with which a task says how its attempt ends.

    Its text is the message; without one, the error that it was raised for, or else the sentence of its class
    if that says that the attempt has `failed`.

    Attributes:
        message: the text that the task gave.
        failed: whether it is a failure.
    """

    message = ""
    failed = True

    def __str__(self) -> str:
        """Return the message of the attempt."""
        if self.message:
            return self.message
        reason = self.__cause__ or (None if self.__suppress_context__ else self.__context__)
        if reason is not None:
            text = str(reason)
            return f"{type(reason).__name__}: {text}" if text else type(reason).__name__
        return (type(self).__doc__ or "").partition("\n")[0] if self.failed else ""


class Retry(AttemptEnd):
    """The attempt failed, and the task asks for another one.

    It takes one of the job's retries, as any failure does: if none is left, the job is dead.

    Attributes:
        delay: seconds until the next attempt; None for the backoff of the job.
    """

    def __init__(self, message: str = "", *, delay: float | None = None) -> None:
        """Try again in *delay* seconds.

        Raises:
            ConfigurationError: the delay is negative, not a number, or too long.
        """
        super().__init__(message)
        self.message = str(message)
        self.delay = None if delay is None else _seconds("the delay of Retry", delay)


class GiveUp(AttemptEnd):
    """The attempt failed, and the task asks for no other one: the job is dead at once."""

    def __init__(self, message: str = "") -> None:
        """Give up, with a *message* for the reader of the dead job."""
        super().__init__(message)
        self.message = str(message)


class Snooze(AttemptEnd):
    """The task asks for another attempt later.

    It takes none of the job's retries: the job is scheduled again, as often as the task asks for it.

    Attributes:
        seconds: seconds until the next attempt.
    """

    failed = False

    def __init__(self, seconds: float, message: str = "") -> None:
        """Run again in so many *seconds*.

        Raises:
            ConfigurationError: the seconds are negative, not a number, or too many.
        """
        super().__init__(seconds, message)
        self.message = str(message)
        self.seconds = _seconds("the time of Snooze", seconds)


def wanted_delay(error: BaseException) -> float | None:
    """Return the seconds until the next attempt that *error* asks for, or None if it does not say.

    Raises:
        ConfigurationError: they are out of bounds: a task may have changed them, or have its own class.
    """
    if isinstance(error, Snooze):
        return _seconds("the time of Snooze", error.seconds)
    if isinstance(error, Retry) and error.delay is not None:
        return _seconds("the delay of Retry", error.delay)
    return None


def _seconds(subject: str, value: object) -> float:
    """Return *value* as a number of seconds.

    Raises:
        ConfigurationError: it is none, or out of bounds.
    """
    if isinstance(value, bool | str | bytes):
        found, shown = math.nan, repr(value[:60] if not isinstance(value, bool) else value)
    else:
        try:
            found = float(value)  # type: ignore[arg-type]  # the failure is handled
            shown = f"{found:g}"
        except OverflowError:
            found, shown = math.inf, "beyond all bounds"
        except (TypeError, ValueError):
            found, shown = math.nan, f"of the type {type(value).__name__}"
    if not 0 <= found <= SECONDS_MAX:
        raise ConfigurationError(
            f"{subject} is {shown}; it is a number of seconds, from 0 to {SECONDS_MAX:.0f}"
        )
    return found
