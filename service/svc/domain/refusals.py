"""Why a manager takes no new jobs for a while, though it takes all that ends those it has."""

from __future__ import annotations

from typing import NamedTuple


class Refusal(NamedTuple):
    """A want of the manager's host that lasts a while.

    Attributes:
        code: the code of the error that submitters get.
        message: its sentence; empty for the one that the error has itself.
    """

    code: str
    message: str


#: The journal's disk is nearly full.
DISK = Refusal("journal_full", "")
#: The manager's memory is nearly at its limit.
MEMORY = Refusal(
    "queue_full",
    "the manager is near its memory limit and takes no new jobs until some have ended and been forgotten; "
    "submit again later, or give it more (`svc manager --memory-limit`, or its container's limit)",
)
#: All there are; of several that hold, submitters are told the first.
REFUSALS = (DISK, MEMORY)
