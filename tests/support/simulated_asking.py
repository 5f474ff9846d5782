"""A consumer of a simulation that asks for jobs while it runs others, as `worker.requests` does."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from svc.domain import commands as c
from svc.domain import replies as r
from tests.support.simulated_workers import Consumer, Job, Report

#: Requests that are sent while jobs run have numbers from here on.
_ASKED_FROM = 1 << 20


class AskingConsumer(Consumer):
    """Sends its next request while it runs jobs, and reads the answer when it likes.

    A request without an answer is lost with its line; its outcomes are reported again.
    """

    SECONDS = 0.0  # so that the window in which jobs are granted behind others is open at once

    def __post_init__(self) -> None:
        #: The requests without an answer, with the outcomes in them, oldest first.
        self.asked: dict[int, list[Report]] = {}
        self.asked_last = _ASKED_FROM
        #: Those whose jobs were taken back before they came.
        self.recalled: set[int] = set()
        #: Jobs that came while others ran, grant by grant.
        self.granted: deque[list[Job]] = deque()
        #: The number of the request that was sent when there was nothing left to run; 0 for none.
        self.asked_idle = 0
        #: The last request that was sent before the grant was read that confirmed nothing.
        self.early_until = 0
        #: Whether its supervisor has taken back what is behind the job that runs.
        self.marked = False

    @property
    def reads_ahead(self) -> bool:
        return bool(self.jobs or self.granted or self.asked)

    @property
    def is_idle(self) -> bool:
        """Whether the manager knows that it runs nothing, once its requests have arrived."""
        return super().is_idle and not self.granted and (self.asked_idle in self.asked or not self.asked)

    def taken_back(self, running: int) -> tuple[int, bool]:
        last, _ = super().taken_back(running)
        self.marked = True
        return last, bool(self.asked or self.granted)

    def step(self) -> None:
        rng = self.world.rng
        if self.executing is not None and rng.random() < 0.15:
            if not self.asked and not self.granted and self.pending is None:
                self._post()
            elif self.line is not None and self.line.to_peer:
                self._look()
            return
        if self.executing is None and not self.jobs:
            if self.marked:
                self._recall()
            elif self.granted:
                self.jobs.extend(self.granted.popleft())
                return
            elif self.asked and self.asked_idle not in self.asked and self._post(idle=True):
                return
        super().step()

    def act(self) -> list[c.Command]:
        if self.executing is None and (self.asked or self.granted):
            return []
        return super().act()

    def lease(self, limit: int) -> c.Lease:
        return c.Lease(limit, 2.0, 0.02, early=self.world.rng.random() < 0.7, running=True)

    def _post(self, *, idle: bool = False) -> bool:
        """Send a request for jobs without a wait for its answer; return whether there is a line for it."""
        if self.line is None or self.strange or self.line.broken:
            return False
        self.asked_last += 1
        outcomes, self.outcomes = self.outcomes, []
        self.asked[self.asked_last] = outcomes
        lease = self.lease(self.world.rng.randint(1, 4))
        self.line.to_manager.append((self.asked_last, [*outcomes, lease]))
        self.world.asked += 1
        if idle:
            self.asked_idle = self.asked_last
        return True

    def _look(self) -> None:
        """Read one message, whatever it answers."""
        if self.line is not None and self.line.to_peer:
            self._read(*self.line.to_peer.popleft())

    def _read(self, request: int, replies: Sequence[r.Reply]) -> None:
        if request <= _ASKED_FROM:
            super()._read(request, replies)
            return
        if request not in self.asked:
            return
        outcomes, grant = self.asked.pop(request), replies[-1]
        recalled = request in self.recalled
        self.recalled.discard(request)
        if not isinstance(grant, r.Grant):
            self.give_up_line()
            return
        if not grant.early:
            self.unrecorded = []
        elif request <= self.early_until:
            self.unrecorded = [*self.unrecorded, *outcomes]  # both grants may have left in one turn
        else:
            self.unrecorded, self.early_until = outcomes, self.asked_last
        jobs = self._taken_from(grant)
        if recalled:
            self._release(jobs)
        elif jobs:
            self.world.behind += self.executing is not None
            self.granted.append(jobs)

    def _recall(self) -> None:
        """Give back all that was asked for behind a job whose successors were taken back."""
        self.marked = False
        self.recalled.update(self.asked)
        for jobs in self.granted:
            self._release(jobs)
        self.granted.clear()

    def _release(self, jobs: Iterable[Job]) -> None:
        first: dict[int, int] = {}
        for token, delivery, index in jobs:
            first.setdefault(token, delivery.first + index)
        self.outcomes += [c.Release(token, number) for token, number in first.items()]

    def _connect(self) -> None:
        self.outcomes = [*(each for outcomes in self.asked.values() for each in outcomes), *self.outcomes]
        self.asked.clear()
        self.recalled.clear()
        super()._connect()

    def _all(self) -> list[Job]:
        return [*super()._all(), *(job for jobs in self.granted for job in jobs)]

    def _reports(self) -> list[Report]:
        asked = [each for outcomes in self.asked.values() for each in outcomes]
        return [*self.unrecorded, *asked, *self.unconfirmed, *self.outcomes]
