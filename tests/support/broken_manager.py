"""`svc manager` with artificial faults; a job of a special task name triggers each of them.

`python -m tests.support.broken_manager manager …`. The faults are in the handlers of the commands and are
installed before the manager starts. The product has none of them.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import Any

from svc.cli import main as svc
from svc.domain import commands as c
from svc.domain import events as e
from svc.domain import replies as r
from svc.domain import upkeep
from svc.domain.apply import HANDLERS
from svc.domain.handlers import Handler
from svc.domain.job import Terms
from svc.domain.lifecycle import JobState
from svc.domain.members import Member
from svc.domain.outcomes import take_and_forget
from svc.domain.queue_state import QueueState

#: Task names. A submit or a put of this one raises an error.
RAISES = "break:raises"
#: A submit of this one makes a count wrong, so that the next step is found to be inconsistent.
CORRUPTS = "break:corrupts"
#: A submit of this one makes an event that cannot be a row of the journal.
WRITES = "break:writes"
#: After this one, the next `upkeep.tick` fails.
TICKS = "break:ticks"
#: After this one, the next request for a job fails, from any consumer.
GRANTS = "break:grants"
FAULTS = (RAISES, CORRUPTS, WRITES, TICKS, GRANTS)


class Faults:
    """The handlers that fail, around the real ones."""

    def __init__(self) -> None:
        self._submit: Handler = HANDLERS[c.Submit]
        self._put: Handler = HANDLERS[c.Put]
        self._lease: Handler = HANDLERS[c.Lease]
        self._tick = upkeep.tick
        self._armed = ""

    def install(self, handlers: MutableMapping[type[c.Command], Handler] = HANDLERS) -> None:
        """Install the faults."""
        handlers[c.Submit] = self.submit
        handlers[c.Put] = self.put
        handlers[c.Lease] = self.lease
        upkeep.tick = self.tick

    def submit(self, state: QueueState, command: c.Submit, member: Member, now: float) -> r.Reply | None:
        reply = self._submit(state, command, member, now)
        for chunk in command.chunks:
            self._break(state, chunk.terms, chunk.bodies[0], now)
        return reply

    def put(self, state: QueueState, command: c.Put, member: Member, now: float) -> r.Reply | None:
        reply = self._put(state, command, member, now)
        self._break(state, command.terms, command.body, now)
        return reply

    def _break(self, state: QueueState, terms: Terms, body: bytes, now: float) -> None:
        match terms.task:
            case task if task == RAISES:
                raise RuntimeError(f"what it was about: {body!r}")
            case task if task == CORRUPTS:
                state.ledger.counts_of(terms.queue)._by_state[JobState.READY] = 0
                take_and_forget(state, next(lane for lane in state.lanes if lane.terms.task == task), now)
            case task if task == WRITES:
                state.record(e.Resumed(now, "\ud800"))
            case task if task in (TICKS, GRANTS):
                self._armed = task

    def lease(self, state: QueueState, command: c.Lease, member: Member, now: float) -> r.Reply | None:
        self._fire(GRANTS)
        return self._lease(state, command, member, now)

    def tick(self, state: QueueState, now: float) -> None:
        self._fire(TICKS)
        self._tick(state, now)

    def _fire(self, fault: str) -> None:
        if self._armed == fault:
            self._armed = ""
            raise LookupError("nobody is there")


def replaced(patch: Any) -> None:
    """Install the faults for one test; *patch* is pytest's `monkeypatch`."""
    faults = Faults()
    patch.setitem(HANDLERS, c.Submit, faults.submit)
    patch.setitem(HANDLERS, c.Put, faults.put)
    patch.setitem(HANDLERS, c.Lease, faults.lease)
    patch.setattr(upkeep, "tick", faults.tick)


if __name__ == "__main__":
    Faults().install()
    svc()
