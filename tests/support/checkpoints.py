"""Decides whether each attempt got a checkpoint that it may get: late enough, and one that was asked for."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from tests.support.history import Execution, Fault, Step

#: Returns the faults that explain why the second of two runs came.
Explanations = Callable[[Execution, Execution], list[Fault]]


@dataclass
class Attempt:
    """One attempt at a job that leaves numbered checkpoints, from its own records."""

    begun: Step
    asked: list[Step] = field(default_factory=list)
    kept: list[Step] = field(default_factory=list)

    @property
    def run(self) -> Execution:
        return Execution(self.begun.label, self.begun.pid, self.begun.at)


def wrong_checkpoints(steps: Iterable[Step], explanations: Explanations) -> list[str]:
    """Return a violation of I14 for each attempt that began with a checkpoint that it may not have."""
    by_label: dict[str, list[Step]] = defaultdict(list)
    for step in sorted(steps, key=lambda each: each.at):
        by_label[step.label].append(step)
    return [wrong for own in by_label.values() for wrong in _wrongs(list(_attempts(own)), explanations)]


def _attempts(steps: Iterable[Step]) -> Iterator[Attempt]:
    last: dict[int, Attempt] = {}
    for step in steps:
        if step.kind == "begun":
            last[step.pid] = Attempt(step)
            yield last[step.pid]
        else:
            getattr(last[step.pid], step.kind).append(step)


def _wrongs(attempts: list[Attempt], explanations: Explanations) -> Iterator[str]:
    asked = 0
    for place, attempt in enumerate(attempts):
        at, got = attempt.begun.at, attempt.begun.number
        if place:
            before = attempts[place - 1]
            kept = _least(before, at, explanations(before.run, attempt.run))
            asked = max([asked, *(step.number for step in before.asked)])
            if not kept <= got <= asked:
                label, pids = attempt.begun.label, (before.begun.pid, attempt.begun.pid)
                yield f"I14: {label} went on at {got}, not from {kept} to {asked}, in processes {pids}"
        elif got:
            yield f"I14: the first attempt at {attempt.begun.label} went on at {got}"


def _least(before: Attempt, at: float, faults: list[Fault]) -> int:
    """Return the number that the attempt after *before*, which began *at* that time, gets at least.

    A checkpoint that the supervisor has outlives the process of its task; one that is durable outlives all.
    """
    supervisor = before.begun.supervisor
    alone = bool(faults) and all(
        fault.fatal and fault.pids is not None and supervisor not in fault.pids for fault in faults
    )
    kept = [step.number for step in before.kept if step.at < at and (step.durable or alone)]
    return max([before.begun.number, *kept])
