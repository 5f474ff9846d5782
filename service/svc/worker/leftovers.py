"""Clears up after tasks: the processes that they leave behind, and changes to the consumer's process."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable

from svc.worker.offspring import collect_children, descendants, end_descendants, has_children
from svc.worker.process import helper_pids
from svc.worker.process_state import ProcessState

#: Seconds that a job runs before it is looked at by itself, and between two looks at the process's state.
#: Such a look takes some 11 µs, and a job that does nothing 4: so all looks take 2 % of the time at most.
LOOK_SECONDS = 0.001


class Leftovers:
    """Clears up after tasks, in a process that belongs to one consumer alone."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Take everything that is there for the modules' own; *clock* gives seconds that never go back."""
        self._state = ProcessState()
        #: The processes that live on: of modules, and of tasks that keep them.
        self._kept = descendants(os.getpid()) if has_children() else set()
        self._clock = clock
        self._looked_at = -math.inf
        self._looked = True

    def clear(self, *, keep_children: bool) -> list[str]:
        """End or keep the processes that were started since the last call, and restore the process's state.

        The state is left to `catch_up` if it was looked at a moment ago. Returns names of changes that cannot
        be put back: the process has to be replaced.
        """
        if has_children():
            self._settle(keep=keep_children)
        self._looked = False
        return self.catch_up()

    def catch_up(self) -> list[str]:
        """Put the state back if that is due; return as `clear` does. To be called before the next jobs."""
        if self._looked:
            return []
        now = self._clock()
        if now < self._looked_at + LOOK_SECONDS:
            return []
        self._looked_at, self._looked = now, True
        return self._state.restore()

    def _settle(self, *, keep: bool) -> None:
        if keep:
            self._kept = descendants(os.getpid())
        else:
            # multiprocessing's helper processes live on: other tasks rely on them.
            end_descendants(os.getpid(), keep=self._kept, helpers=helper_pids())
            collect_children(self._kept)

    def end(self) -> None:
        """End all processes, because this one ends."""
        if has_children():
            end_descendants(os.getpid())
