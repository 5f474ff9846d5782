"""The verbs of an operator: those about the service as a whole, its workers and its journal."""

from __future__ import annotations

import abc
from typing import TypeVar

from svc.domain import commands as c
from svc.domain import replies as r

R = TypeVar("R", bound=r.Reply)


class OperatorVerbs(abc.ABC):
    """The verbs that concern no single job."""

    @abc.abstractmethod
    def _one(self, command: c.AnyCommand, kind: type[R], *, wait: float = 0.0) -> R:
        """Apply *command*; return its reply, which is of *kind*, or raise the error of a refusal."""

    def drain(self, *, worker: str = "", refuse: bool = False) -> None:
        """Hand a pill to every consumer that asks (of one worker, or of all) until `resume`. Durable.

        If *refuse* is set, new jobs are refused meanwhile.
        """
        self._one(c.Drain(worker, refuse), r.Done)

    def resume(self, *, worker: str = "") -> None:
        """End a drain. Does nothing if there is none."""
        self._one(c.Resume(worker), r.Done)

    def stats(self) -> r.Totals:
        """Return the counts of every queue and of the members, as one consistent snapshot."""
        return self._one(c.Stats(), r.Totals)

    def members(self) -> list[r.WorkerView]:
        """Describe the connected workers."""
        found: list[r.WorkerView] = []
        after: str | None = ""
        while after is not None:
            page = self._one(c.Members(after, paged=True), r.Roster)
            found, after = found + page.workers, page.after or None
        return found

    def backup(self, name: str) -> r.Copy:
        """Begin a backup of the journal under a file name, or return its progress; call until it is done.

        Raises:
            BadRequest: the name is not allowed, or the engine keeps no journal.
            Conflict: the file exists, or another backup is running.
        """
        return self._one(c.Backup(name), r.Copy)

    def accept_clock(self) -> bool:
        """Have the manager's clock set to its host's time of day; return whether it was another."""
        return bool(self._one(c.AcceptClock(), r.Done).count)

    def hand_over(self) -> None:
        """Have the manager end, and a standby take the lead.

        Raises:
            Conflict: there is no standby.
        """
        self._one(c.HandOver(), r.Done)

    def metrics(self) -> str:
        """Return the queue's metrics as Prometheus text.

        Raises:
            BadRequest: the engine keeps none.
        """
        return self._one(c.Exposition(), r.Text).text
