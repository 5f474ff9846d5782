"""Reasons why a manager accepts no new jobs for a while; it still takes the reports that end jobs."""

from __future__ import annotations

from typing import NamedTuple


class Refusal(NamedTuple):
    """A shortage of the manager's host that may last a while.

    Attributes:
        code: the code of the error that submitters get.
        message: its sentence; "" for the error's own sentence.
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
#: All refusals; if several are in force, submitters get the first.
REFUSALS = (DISK, MEMORY)
