"""The futures of an executor that wait for an outcome, by the ids of their jobs."""

from __future__ import annotations

from collections.abc import Iterator

from svc.client.futures import Future
from svc.domain.job import Outcome


class Awaited:
    """Futures that have not ended. All but looking at `foreign` is done under the lock of the `Dispatch`."""

    def __init__(self) -> None:
        """Start with none."""
        self._futures: dict[str, Future] = {}
        #: Those of jobs that are not of the executor's origin: they are asked for one by one.
        self.foreign: dict[str, Future] = {}
        #: Those of the foreign ones that are the executor's own.
        self._moved: dict[str, Future] = {}
        #: Outcomes of jobs that are not acknowledged.
        self._early: dict[str, Outcome] = {}

    def __len__(self) -> int:
        """Return how many wait."""
        return len(self._futures)

    def __iter__(self) -> Iterator[Future]:
        """Iterate over all."""
        return iter(self._futures.values())

    def get(self, name: str) -> Future | None:
        """Return the future of a job, if it waits."""
        return self._futures.get(name)

    def add(self, future: Future) -> None:
        """Have the future of a new job wait."""
        self._futures[future.job_id] = future

    def watch(self, future: Future) -> Future:
        """Have the future of a job wait that may be another's; return the one that waits for it already."""
        future = self.foreign.setdefault(future.job_id, future)
        self._futures[future.job_id] = future
        return future

    def pop(self, name: str) -> Future | None:
        """Return the future of a job, which does not wait any more."""
        if self.foreign:
            self.foreign.pop(name, None)
            self._moved.pop(name, None)
        return self._futures.pop(name, None)

    def take(self, outcome: Outcome) -> Future | None:
        """Return the future that *outcome* ends, which does not wait any more.

        As long as a job is not acknowledged, its number may be that of another one, whose outcome this is.
        """
        future = self._futures.get(outcome.id)
        if future is not None and not future.sent:
            self._early[outcome.id] = outcome
            return None
        return self.pop(outcome.id)

    def take_early(self) -> list[Outcome]:
        """Return the outcomes that came before their jobs were acknowledged."""
        early, self._early = list(self._early.values()), {}
        return early

    def move(self, future: Future, name: str) -> None:
        """Give a future that waits the id *name*, under which its job was accepted."""
        self._early.pop(future.job_id, None)
        if self.pop(future.job_id) is not None:
            future.job_id = name
            for futures in (self._futures, self.foreign, self._moved):
                futures[name] = future

    def own(self) -> list[Future]:
        """Return those of the executor's own jobs."""
        others = self.foreign.keys() - self._moved.keys()
        return [future for name, future in self._futures.items() if name not in others]
