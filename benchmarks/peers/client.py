"""The client of one peer, in that peer's environment: `python -m benchmarks.peers.client MODULE`.

Starts the peer's workers, runs some jobs to warm them up, then answers each line on stdin (a JSON object of
sizes) with a line on stdout (a JSON object of figures). The number of no-op jobs depends on the peer's speed.
An object with `pauses` is answered with the times of such sleeps, one with `task` with the rate of it, and
one with `programs` with the rate of so many programs.
When stdin ends, also because the parent was killed, it stops its workers and ends.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from typing import Any, cast

from benchmarks import tasks
from benchmarks.peers.timing import RunsPrograms, System, measure, rate_of, seconds_for_all, sleep_times

_WARM_UP = int(os.environ.get("PEERS_WARM_UP", "200"))
_SAMPLE = 200
_MOST = 20_000
_TRIP_SAMPLE, _TRIP_SECONDS = 3, 20.0
_LINK_SAMPLE = 32


def main(module: str) -> None:
    """Serve measurements of the `System` of *module* until stdin ends."""
    # The output of a peer and its workers goes to the log; only answers go to stdout.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with importlib.import_module(module).System() as system:
        seconds_for_all(system, _WARM_UP)
        print("ready", file=answers, flush=True)
        for line in sys.stdin:
            print(json.dumps(_answer(system, json.loads(line))), file=answers, flush=True)


def _answer(system: System, request: dict[str, Any]) -> dict[str, Any]:
    if "pauses" in request:
        return {"times": sleep_times(system, request["pauses"])}
    if "task" in request:
        return {"rate": _rate_of(system, **request)}
    if "programs" in request:
        return {"rate": cast("RunsPrograms", system).programs(request["programs"])}
    jobs = _jobs(system, request.pop("seconds"))
    return measure(system, jobs, _trips(system, request.pop("trips")), **request)


def _rate_of(system: System, task: str, argument: Any, jobs: int, seconds: float) -> float:
    """Return the rate of a task: of *jobs* of them, or of as many as take the system about *seconds*."""
    function = getattr(tasks, task)
    sample = min(jobs, _LINK_SAMPLE)
    rate = rate_of(system, function, [argument] * sample)
    count = min(jobs, int(rate * seconds))
    return rate_of(system, function, [argument] * count) if count > sample else rate


def _jobs(system: System, seconds: float) -> int:
    """Return the number of jobs that take the system about *seconds*, so that no peer takes minutes."""
    _, taken = seconds_for_all(system, _SAMPLE)
    return max(_SAMPLE, min(_MOST, int(seconds * _SAMPLE / taken)))


def _trips(system: System, most: int) -> int:
    """Return the number of round trips: *most*, or as many as fit into a few seconds."""
    began = time.perf_counter()
    for _ in range(_TRIP_SAMPLE):
        system.one(tasks.same, 1)
    each = (time.perf_counter() - began) / _TRIP_SAMPLE
    return min(most, max(_TRIP_SAMPLE, int(_TRIP_SECONDS / each)))


if __name__ == "__main__":
    main(sys.argv[1])
