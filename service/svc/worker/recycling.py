"""Recycling: a worn consumer leaves once another one is ready in its place.

A consumer is worn after a number of jobs, at an age, when its memory has grown too much, or when the worker's
tasks are loaded again. It works on until
its successor has joined the manager; so there are never fewer consumers at work than the worker has places.
Few are replaced at a time: the starts of processes take processor time from the jobs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

from svc.chance import CHANCE
from svc.worker.consumer_exit import ConsumerExit, ReplacementReason, pause_before
from svc.worker.consumer_pool import ConsumerPool
from svc.worker.consumer_process import ConsumerProcess
from svc.worker.options import WorkerOptions
from svc.worker.slot import Phase

#: Places for each of which one consumer may be replaced at a time.
_PLACES_FOR_ONE: Final = 8
#: Seconds between two looks at a successor that starts.
_LOOK_SECONDS: Final = 0.05
#: The part of its age limit by which a consumer may be replaced early, so that not all are at the same time.
_SPREAD: Final = 0.1


class Recycling:
    """Replaces the worn consumers of a pool; the supervisor's thread alone uses it.

    Args:
        options: the settings of the worker.
        pool: the consumers.
        log: the supervisor's log.
        chance: gives numbers in [0, 1).
    """

    def __init__(
        self,
        options: WorkerOptions,
        pool: ConsumerPool,
        log: Any,
        chance: Callable[[], float] = CHANCE.random,
    ) -> None:
        self._age = options.recycle_age
        self._at_once = max(1, options.consumers // _PLACES_FOR_ONE)
        self._pool = pool
        self._log = log
        self._chance = chance
        #: The consumers that wait for a successor, with the reasons.
        self._worn: dict[ConsumerProcess, str] = {}
        #: The successors that start, of the worn consumers.
        self._successors: dict[ConsumerProcess, ConsumerProcess] = {}
        #: The consumers that were told to leave, with those in their places.
        self._leaving: dict[ConsumerProcess, ConsumerProcess | None] = {}
        self._reloaded_at = 0.0
        self._old_at: dict[ConsumerProcess, float] = {}
        self._not_before = 0.0
        self._failures = 0

    def note(self, child: ConsumerProcess, reason: str) -> None:
        """Note that a consumer is worn."""
        if child not in self._leaving:
            self._worn.setdefault(child, reason)

    def reload(self, now: float) -> None:
        """Replace all consumers that were started before *now*."""
        self._reloaded_at = now
        self._not_before, self._failures = 0.0, 0
        for child in self._pool.children:
            # A successor that still starts may have the old tasks; it is replaced once it is ready.
            if child not in self._successors.values():
                self.note(child, "reload")

    def next_look(self, now: float) -> float | None:
        """Return the monotonic time of the next `turn` that has something to do, or None."""
        if self._successors:
            return now + _LOOK_SECONDS
        return max(now, self._not_before) if self._worn and self._not_before < math.inf else None

    def turn(self, now: float) -> None:
        """Start successors, and tell the consumers to leave whose successors are ready."""
        if self._age:
            self._note_age(now)
        for old, new in list(self._successors.items()):
            if new.slot.look().phase is not Phase.STARTING:
                self._hand_over(old, new)
        if self._worn and now >= self._not_before:
            self._begin(now)

    def close(self) -> None:
        """Replace no consumer any more."""
        self._age = 0.0
        self._not_before = math.inf
        self._successors.clear()

    def _note_age(self, now: float) -> None:
        for child in self._pool.children:
            if child not in self._old_at:
                self._old_at[child] = child.born + self._age * (1.0 - _SPREAD * self._chance())
            if now >= self._old_at[child] and child.loaded and child not in self._successors:
                self.note(child, "age")

    def _begin(self, now: float) -> None:
        """Start successors of the consumers that have waited longest."""
        waiting = [child for child in self._worn if child not in self._successors]
        for old in waiting[: self._at_once - len(self._successors)]:
            new = self._pool.start_another(now)
            if new is None:
                self._not_before = now + pause_before(ReplacementReason.OTHER, 1)
                return
            self._successors[old] = new

    def _hand_over(self, old: ConsumerProcess, new: ConsumerProcess) -> None:
        del self._successors[old]
        self._failures = 0
        self._log.info("consumer_recycled", consumer=old.name, successor=new.name, reason=self._worn.pop(old))
        self._dismiss(old, new)
        if new.born < self._reloaded_at:
            self.note(new, "reload")

    def _dismiss(self, child: ConsumerProcess, successor: ConsumerProcess | None) -> None:
        self._worn.pop(child, None)
        self._leaving[child] = successor
        child.stop()

    def settle(self, child: ConsumerProcess, ended: ConsumerExit) -> bool:
        """Note the end of a consumer; return whether its place is taken, so that it needs no replacement."""
        self._worn.pop(child, None)
        self._old_at.pop(child, None)
        if child in self._leaving:
            successor = self._leaving.pop(child)
            if successor is not None:
                self._take_pill(ended, successor)
            reason = ReplacementReason.RECYCLED if ended.orderly else ended.reason
        elif child in self._successors:
            # Its successor comes a little later than it should.
            self._take_pill(ended, self._successors.pop(child))
            reason = ended.reason
        elif child in self._successors.values():
            self._fail(child, ended)
            reason = ended.reason
        else:
            return False
        if not ended.pilled:
            self._pool.restarts[reason.value] += 1
        return True

    def _fail(self, child: ConsumerProcess, ended: ConsumerExit) -> None:
        """Try again later in the place of a successor that has ended at once."""
        (old,) = (old for old, new in self._successors.items() if new is child)
        del self._successors[old]
        if ended.pilled:
            self._take_pill(ended, old)
        else:
            self._failures += 1
            self._not_before = ended.at + pause_before(ReplacementReason.OTHER, self._failures)

    def _take_pill(self, ended: ConsumerExit, other: ConsumerProcess) -> None:
        """If one of the two consumers in a place had a pill, it was for the place: see that the *other* goes.

        A drain has a pill for each of them, and its place is refilled once.
        """
        if ended.drained:
            self._pool.drained -= 1
        elif ended.pilled and other in self._pool.children:
            self._dismiss(other, None)
