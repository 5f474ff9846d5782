"""The futures of an executor that wait for an outcome, by job id."""

from __future__ import annotations

from collections.abc import Iterator

from svc.client.futures import Future
from svc.domain.job import Outcome


class Awaited:
    """Futures that have not ended. Every access but a look at `foreign` needs the lock of the `Dispatch`."""

    def __init__(self) -> None:
        """Start with none."""
        self._futures: dict[str, Future] = {}
        #: The futures of jobs of another origin than the executor's; their outcomes are asked for one by one.
        self.foreign: dict[str, Future] = {}
        #: Those of them that are the executor's own jobs, under another origin.
        self._moved: dict[str, Future] = {}
        #: Outcomes of jobs that are not acknowledged yet.
        self._early: dict[str, Outcome] = {}

    def __len__(self) -> int:
        """Return the number of waiting futures."""
        return len(self._futures)

    def __iter__(self) -> Iterator[Future]:
        """Iterate over all waiting futures."""
        return iter(self._futures.values())

    def get(self, name: str) -> Future | None:
        """Return the future of a job, or None if it does not wait."""
        return self._futures.get(name)

    def add(self, future: Future) -> None:
        """Add the future of a new job."""
        self._futures[future.job_id] = future

    def watch(self, future: Future) -> Future:
        """Add the future of a job that may be another client's; return the one that waits for it already."""
        future = self.foreign.setdefault(future.job_id, future)
        self._futures[future.job_id] = future
        return future

    def pop(self, name: str) -> Future | None:
        """Remove and return the future of a job, or None if it does not wait."""
        if self.foreign:
            self.foreign.pop(name, None)
            self._moved.pop(name, None)
        return self._futures.pop(name, None)

    def take(self, outcome: Outcome) -> Future | None:
        """Remove and return the future that *outcome* ends, or None.

        Until a job is acknowledged, its number may belong to another job, and the outcome to that one.
        """
        future = self._futures.get(outcome.id)
        if future is not None and not future.sent:
            self._early[outcome.id] = outcome
            return None
        return self.pop(outcome.id)

    def take_early(self) -> list[Outcome]:
        """Remove and return the outcomes that came before their jobs were acknowledged."""
        early, self._early = list(self._early.values()), {}
        return early

    def move(self, future: Future, name: str) -> None:
        """Give a waiting future the id *name*, under which its job was accepted."""
        self._early.pop(future.job_id, None)
        if self.pop(future.job_id) is not None:
            future.job_id = name
            for futures in (self._futures, self.foreign, self._moved):
                futures[name] = future

    def own(self) -> list[Future]:
        """Return the futures of the executor's own jobs."""
        others = self.foreign.keys() - self._moved.keys()
        return [future for name, future in self._futures.items() if name not in others]
