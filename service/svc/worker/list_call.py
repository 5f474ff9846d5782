"""Calls a task with a list of jobs, and makes an outcome for each of what it returns."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from svc.envelope import Envelopes
from svc.errors import BadOutcomes
from svc.worker import context
from svc.worker.failure import Failure
from svc.worker.runner import OpenedJob, ResolvedTask


class _Call:
    """One call of a task with some jobs; those whose arguments cannot be read are not among them."""

    def __init__(self) -> None:
        self._tasks: list[ResolvedTask] = []
        self._jobs: list[context.ListedJob] = []
        self._running: list[context.Running] = []
        self._envelopes: list[Envelopes | None] = []

    def add(self, task: ResolvedTask, running: context.Running, opened: OpenedJob) -> None:
        """Add a job; each may have terms of its own."""
        number = running.delivery.first
        self._tasks.append(task)
        self._running.append(running)
        self._jobs.append(context.ListedJob(running, number, opened.args, opened.kwargs))
        self._envelopes.append(opened.envelopes)

    def run(self) -> list[bytes | Failure]:
        """Return the outcomes, in the order of the jobs."""
        try:
            returned = self._tasks[0].call_with(self._jobs)
        except BaseException as error:  # noqa: BLE001 - all that a task raises is a failure of it
            return self._all_fail(error)
        expected = len(self._jobs)
        if not isinstance(returned, list | tuple) or len(returned) != expected:
            return self._all_fail(BadOutcomes(_said(returned, expected)))
        return [self._outcome(place, value) for place, value in enumerate(returned)]

    def _outcome(self, place: int, value: Any) -> bytes | Failure:
        with context.within(self._running[place]):
            return self._tasks[place].outcome(value, self._envelopes[place])

    def _all_fail(self, error: BaseException) -> list[bytes | Failure]:
        shared: bytes | Failure | None = None
        outcomes: list[bytes | Failure] = []
        for task, envelopes in zip(self._tasks, self._envelopes, strict=True):
            if envelopes is not None:
                outcomes.append(task.outcome(error, envelopes))
            else:
                shared = shared or task.outcome(error, None)
                outcomes.append(shared)
        return outcomes


def _said(returned: Any, expected: int) -> str:
    kind = type(returned).__name__
    what = f"a {kind} of {len(returned)}" if isinstance(returned, list | tuple) else kind
    return (
        f"the task returned {what}, and was to return a list of {expected}: for each job, in their order, a "
        "value or an exception instance"
    )


def run_listed(jobs: Sequence[tuple[ResolvedTask, context.Running]]) -> list[bytes | Failure]:
    """Run jobs as one list; return their outcomes. `begin` was called for each, and `end` follows."""
    call, outcomes = _Call(), list[bytes | Failure | None]()
    with ExitStack() as attempts:
        for task, running in jobs:
            attempts.enter_context(task.attempt())
            with context.within(running):
                opened = task.opened(running)
            if isinstance(opened, Failure):
                outcomes.append(opened)
            else:
                outcomes.append(None)
                call.add(task, running, opened)
        called = iter(call.run() if None in outcomes else ())
        return [next(called) if outcome is None else outcome for outcome in outcomes]
