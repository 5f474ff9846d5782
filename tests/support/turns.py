"""A manager with a key for each role, whose observer sees the cost of its turns."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import AbstractContextManager

from benchmarks.processes import slowness
from svc.domain.observer import Observer
from svc.domain.roles import Role
from svc.server.connection_limits import Bounds
from svc.server.keys import Key, KeyRing
from tests.support.manager import RunningManager, running_manager

KEYS = {role: secrets.token_bytes(32) for role in Role}
#: Seconds of the loop's processor time that one turn may take for a message of up to 1 MiB.
TURN_SECONDS = 0.05


#: Another try is for a machine that is busy with other work.
_TRIES = 4


class _Longest(Observer):
    """The processor time of the longest turn."""

    seconds = 0.0

    def longest_turn(self, processor_seconds: float, part: str, role: str) -> None:
        self.seconds = processor_seconds


def longest_turn(story: Callable[[RunningManager], None], enough: float = TURN_SECONDS) -> float:
    """Return the processor seconds of the longest turn of *story*, as a machine takes that is not slow now.

    They are the least of some tries, each on a new manager, or those of the first with *enough* or less.
    """
    found: list[float] = []
    while len(found) < _TRIES and not (found and found[-1] <= enough):
        told = _Longest()
        slow = slowness()
        with observed_manager(told) as manager:
            story(manager)
        found.append(told.seconds / max(slow, slowness()))
    return min(found)


def observed_manager(observer: Observer) -> AbstractContextManager[RunningManager]:
    keys = KeyRing([Key(role, secret) for role, secret in KEYS.items()])
    return running_manager(observer=observer, keys=keys, bounds=Bounds(connections=10))
