"""The limits of one attempt, which the supervisor enforces."""

from __future__ import annotations

from typing import NamedTuple

#: Seconds after which the supervisor kills a task that should have ended itself at its timeout.
SPARE_SECONDS = 2.0


class AttemptLimits(NamedTuple):
    """The limits of an attempt; None or 0 stands for no limit.

    Attributes:
        timeout: seconds after which its consumer is killed.
        soft_timeout: seconds after which `SoftTimeout` is raised in its task.
        max_rss: bytes of memory of the consumer and its children above which it is killed.
    """

    timeout: float | None = None
    soft_timeout: float | None = None
    max_rss: int | None = None
