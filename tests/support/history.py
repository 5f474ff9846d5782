"""The input of the checker: calls, executions and faults; the process that saw one appends it as a line.

Times are `time.monotonic()` in seconds, which all processes of one Linux host share. Every process has its
own file, and each line is one `write`, so a kill at any moment loses at most a line that is not begun yet.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from svc.errors import ManagerUnreachable

T = TypeVar("T")

OK, FAIL, UNKNOWN = "ok", "fail", "unknown"
#: The kind of a fault that nobody has injected: so long the machine gave no time, or the disk took nothing.
STOOD_STILL = "the machine stood still"
#: Seconds in which a process that kills itself may still begin another job, on a busy machine too. Its number
#: explains nothing once it is dead.
DYING_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a client about the jobs labelled `client-first` … ; `deadline` 0 means no deadline."""

    client: str
    verb: str
    first: int
    count: int
    call: float
    returned: float | None
    outcome: str
    deadline: float = 0.0

    def labels(self) -> Iterator[str]:
        return (f"{self.client}-{number}" for number in range(self.first, self.first + self.count))


@dataclass(slots=True)
class Execution:
    """One run of a job by one process; `end` is None if the process did not come so far."""

    label: str
    pid: int
    start: float
    end: float | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """A deliberate fault, from `at` to `until`.

    `pids` are the processes that it affected. None means that it could affect any lease; an empty set means
    that it could affect none. A poison job records its own faults, which were not `injected` one by one.
    """

    kind: str
    at: float
    until: float
    pids: frozenset[int] | None = None
    injected: bool = True
    fatal: bool = False

    def hits(self, *pids: int) -> bool:
        return self.pids is None or not self.pids.isdisjoint(pids)


@dataclass(frozen=True, slots=True)
class Drain:
    """A drain: the times of its request, of its completion (None: never), and of its end.

    `workers` are the exit codes of workers. `stock` are the processes of stock clients, which have no
    supervisor: if such a client has lost its manager, it still runs its item to the end.
    """

    asked: float
    still: float | None
    resumed: float
    code: int
    workers: tuple[int | None, ...] = ()
    stock: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class StreamRead:
    """The partial results that a client has read of one attempt; `ended` if it came to the end of the job."""

    label: str
    number: int
    values: list[list[object]]
    ended: bool


@dataclass(frozen=True, slots=True)
class Step:
    """What a task did about its checkpoints, each a number that grows.

    It has `begun` with a number, has `asked` to keep one, or that was `kept`, when the call returned.
    """

    label: str
    pid: int
    supervisor: int
    at: float
    kind: str
    number: int
    durable: bool = False


@dataclass
class History:
    """All observations from outside; `cancels` has the state of each job when its cancel had returned."""

    calls: list[Call] = field(default_factory=list)
    executions: list[Execution] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    drains: list[Drain] = field(default_factory=list)
    streams: list[StreamRead] = field(default_factory=list)
    cancels: dict[str, str] = field(default_factory=dict)
    checkpoints: list[Step] = field(default_factory=list)


class Log:
    """A file of one process; no written line is lost if the process is killed."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, **line: Any) -> None:
        os.write(self._descriptor, json.dumps(line).encode() + b"\n")


class Recorder:
    """Makes the calls of one client, and records the start and the end of each."""

    def __init__(self, folder: Path, client: str) -> None:
        self.client = client
        self._log = Log(folder / "calls" / f"{client}.jsonl")

    def call(self, verb: str, first: int, count: int, deadline: float, ask: Callable[[], T]) -> T | None:
        """Return the result of *ask*, or None if the outcome of the call is not known."""
        about = {"client": self.client, "verb": verb, "first": first, "count": count, "deadline": deadline}
        began = time.monotonic()
        self._log.write(**about, call=began)
        outcome, answer = FAIL, None
        try:
            answer = ask()
            outcome = OK
        except ManagerUnreachable:
            outcome = UNKNOWN
        finally:
            self._log.write(**about, call=began, returned=time.monotonic(), outcome=outcome)
        return answer


def read_calls(folder: Path) -> list[Call]:
    """Return the recorded calls of all clients; a call without an end is unknown."""
    found: dict[tuple[str, str, int, float], Call] = {}
    for line in _lines(folder / "calls"):
        line.setdefault("returned", None)
        line.setdefault("outcome", UNKNOWN)
        found[line["client"], line["verb"], line["first"], line["call"]] = Call(**line)
    return sorted(found.values(), key=lambda call: call.call)


def read_executions(folder: Path) -> list[Execution]:
    """Return the recorded executions of all processes, in the order of their starts."""
    found: list[Execution] = []
    running: dict[tuple[str, int], Execution] = {}
    for line in _lines(folder / "executions"):
        key = line["label"], line["pid"]
        if "start" in line:
            running[key] = Execution(*key, line["start"])
            found.append(running[key])
        else:
            running[key].end = line["end"]
    return sorted(found, key=lambda execution: execution.start)


def read_faults(folder: Path) -> list[Fault]:
    """Return the faults that jobs recorded before they occurred."""
    return [Fault(**{**line, "pids": frozenset(line["pids"])}) for line in _lines(folder / "faults")]


def read_cancels(folder: Path) -> dict[str, str]:
    """Return the state of each job when its cancel had returned."""
    return {line["label"]: line["state"] for line in _lines(folder / "cancels")}


def read_checkpoints(folder: Path) -> list[Step]:
    """Return what all tasks did about their checkpoints."""
    return [Step(**line) for line in _lines(folder / "checkpoints")]


def read_leftovers(folder: Path) -> list[tuple[str, int, int]]:
    """Return the processes that jobs have left behind: label, that process, and the one that ran the job."""
    return [(line["label"], line["left"], line["pid"]) for line in _lines(folder / "leftovers")]


def _lines(folder: Path) -> Iterator[dict[str, Any]]:
    for path in sorted(folder.glob("*.jsonl")):
        with path.open(encoding="utf-8") as file:
            yield from map(json.loads, file)
