"""Takes a protection away in every Python process whose PYTHONPATH begins here: SVC_SABOTAGE names it.

So a test shows that a fault of the campaign is noticed if svc does not bear it.
"""

from __future__ import annotations

import os
from collections.abc import Callable


def forks() -> None:
    """A forked child goes on with its inherited connections."""
    from svc.broker import forks

    vars(forks)["begin_anew_in_children"] = lambda inherited: None


def lines() -> None:
    """A line waits until its reader makes room."""
    from svc.telemetry.lines import LineWriter

    def write(self: LineWriter, line: bytes) -> bool:
        return os.write(self._descriptor, line) == len(line)

    LineWriter.write = write  # type: ignore[method-assign]


def presence() -> None:
    """Nobody looks whether the journal's files are in their place."""
    from svc.server.journal.presence import UNSETTLED, Presence

    Presence.check = lambda self: UNSETTLED  # type: ignore[method-assign]


def ownership() -> None:
    """Nobody looks whether another manager has taken the journal over."""
    from svc.server.journal.ownership import Ownership

    Ownership.check = lambda self: None  # type: ignore[method-assign]


def leftovers() -> None:
    """Nobody ends the processes that a task has left."""
    from svc.worker.leftovers import Leftovers

    Leftovers.clear = lambda self, *, keep_children: []  # type: ignore[method-assign]
    Leftovers.end = lambda self: None  # type: ignore[method-assign]


def suspicion() -> None:
    """No job is suspected, or dead, for the loss of its worker."""
    from svc.domain import suspicion

    vars(suspicion)["_suspect"] = lambda *lost, **how: None
    os.environ["SVC_SUSPICION_BUDGET"] = "0"


def clock() -> None:
    """Whatever the host's time of day is at the start, it is believed."""
    os.environ["SVC_MAX_CLOCK_JUMP"] = "36500d"


_ALL: dict[str, Callable[[], None]] = {
    each.__name__: each for each in (forks, lines, presence, ownership, leftovers, suspicion, clock)
}
_ALL.get(os.environ.get("SVC_SABOTAGE", ""), lambda: None)()
