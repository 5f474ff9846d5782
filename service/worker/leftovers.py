"""What a task leaves behind in its consumer: processes, and a changed state of the process itself."""

from __future__ import annotations

from service.worker.offspring import Offspring
from service.worker.process import helper_pids
from service.worker.process_state import ProcessState

#: Seconds that a job runs before it is looked at by itself; shorter ones are looked at once for each grant. A
#: look takes some 15 µs, and a job that does nothing 4.
LOOK_SECONDS = 0.001


class Leftovers:
    """Clears up after tasks in a process that is a consumer's alone."""

    def __init__(self) -> None:
        """Take everything that is there for the modules' own."""
        # What multiprocessing keeps beside a process that uses it: other tasks rely on that.
        self._offspring = Offspring(helper_pids)
        self._state = ProcessState()

    def clear(self, *, keep_children: bool) -> list[str]:
        """End the processes that were started since the last call, or keep them; put the state back.

        Returns names of changes that cannot be put back: the process has to be replaced.
        """
        self._offspring.settle(keep=keep_children)
        return self._state.restore()

    def end(self) -> None:
        """End all processes, because this one ends."""
        self._offspring.end()
