"""The retry rules: whether and when a failed job runs again. They are pure: the jitter is passed in."""

from __future__ import annotations

from dataclasses import dataclass

#: Attempts whose process may die before the job is dead (the README describes the counts).
CRASH_BUDGET = 3
#: Retries of a task without a setting of its own.
DEFAULT_RETRIES = 3
#: Seconds before the first retry of a task without a setting of its own; each further retry doubles them.
DEFAULT_BACKOFF = 1.0
#: The longest backoff in seconds.
MAX_BACKOFF = 3600.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how soon a failed job is tried again.

    Attributes:
        retries: attempts after the first; with 0 the job is dead at its first failure.
        backoff: seconds before the first retry; doubled for each further one, up to `max_backoff`.
        max_backoff: the longest wait in seconds, before jitter.
    """

    retries: int = DEFAULT_RETRIES
    backoff: float = DEFAULT_BACKOFF
    max_backoff: float = MAX_BACKOFF

    def retry_in(self, failures: int, jitter: float) -> float | None:
        """Return the seconds to wait after failure number *failures* (1 is the first), or None to give up.

        *jitter* is as for `growing`.
        """
        if failures > self.retries:
            return None
        # The backoff in an older journal may be negative, or not a number at all.
        return max(0.0, growing(self.backoff, self.max_backoff, failures, jitter))


def growing(first: float, longest: float, failures: int, jitter: float) -> float:
    """Return the seconds to wait after failure number *failures* in a row (1 is the first).

    The wait doubles from *first* to *longest*. *jitter* is in [0, 1): the wait is between half and the whole
    of the exponential value, so that callers that failed together do not all try again together ("equal
    jitter").
    """
    full = min(first * 2.0 ** min(failures - 1, 62), longest)
    return full / 2 + full / 2 * jitter


def crash_retry_in(crashes: int) -> float | None:
    """Return 0 (retry at once) while the crash budget lasts, otherwise None."""
    return 0.0 if crashes < CRASH_BUDGET else None
