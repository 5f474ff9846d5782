"""A client and an executor that are made before a fork, and used by parent and children.

`python -m tests.support.forking_client NAME TASK FOLDER CHILDREN JOBS`. The exit code is the number of
processes, the parent among them, that did not get the results of their own jobs and of no others.
"""

from __future__ import annotations

import functools
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from svc import Client, Executor
from svc.client.submitter import Job
from tests.support.history import Recorder

#: Seconds that each call may take, and all results.
CALL_SECONDS, RESULT_SECONDS = 5.0, 50.0
#: Its jobs go before the others of the campaign, and to workers alone: stock consumers return nothing.
_OPTIONS: dict[str, Any] = {"priority": 10, "queue": "poison"}


class Submitters:
    """A client and an executor, and their jobs."""

    def __init__(self, client: Client, executor: Executor, task: str, folder: str) -> None:
        self._client = client
        self._submitter = client.options(**_OPTIONS)
        self._executor = executor.options(**_OPTIONS)
        self._task = task
        self._folder = folder

    def use(self, name: str, jobs: int) -> int:
        """Submit *jobs* jobs in each way, labelled with *name*; return 1 if a result is not theirs or 0."""
        try:
            recorder = Recorder(Path(self._folder), name)
            labels = [f"{name}-{number}" for number in range(2 * jobs)]
            submitted = [
                recorder.call("submit", number, 1, CALL_SECONDS, functools.partial(self._one, label))
                for number, label in enumerate(labels[:jobs])
            ]
            together = functools.partial(self._together, labels[jobs:])
            others = recorder.call("submit", jobs, jobs, RESULT_SECONDS, together) or []
            found = self._client.results([job for job in submitted if job is not None], RESULT_SECONDS)
            wrong = [pair for pair in zip(labels, [*found, *others], strict=True) if pair[0] != pair[1]]
            if wrong:
                sys.stderr.write(f"{name} has other results: {wrong}\n")
            return int(bool(wrong))
        except Exception:  # noqa: BLE001 - a forked child must not go on with its parent's work
            traceback.print_exc()
            return 1

    def _one(self, label: str) -> Job:
        return self._submitter.submit(self._task, label, 0.0, self._folder)

    def _together(self, labels: Sequence[str]) -> list[object]:
        futures = [self._executor.submit(self._task, label, 0.0, self._folder) for label in labels]
        return [future.result(RESULT_SECONDS) for future in futures]


def main(name: str, task: str, folder: str, children: int, jobs: int) -> int:
    with Client(timeout=CALL_SECONDS) as client, Executor(timeout=CALL_SECONDS) as executor:
        submitters = Submitters(client, executor, task, folder)
        wrong = submitters.use(f"{name}.before", 1)
        pids = []
        for child in range(children):
            if (pid := os.fork()) == 0:
                os._exit(submitters.use(f"{name}.{child}", jobs))
            pids.append(pid)
        wrong |= submitters.use(f"{name}.parent", jobs)
        codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    return wrong + sum(code != 0 for code in codes)


if __name__ == "__main__":
    name, task, folder, *counts = sys.argv[1:]
    sys.exit(main(name, task, folder, *map(int, counts)))
