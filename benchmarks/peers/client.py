"""The client of one peer, in that peer's environment: `python -m benchmarks.peers.client MODULE`.

Starts the peer's workers, runs some jobs to warm them up, then answers each line on stdin (a JSON object of
sizes) with a line on stdout (a JSON object of figures). The number of no-op jobs depends on the peer's speed.
When stdin ends, also because the parent was killed, it stops its workers and ends.
"""

from __future__ import annotations

import importlib
import json
import os
import sys

from benchmarks.peers.timing import System, measure, seconds_for_all

_WARM_UP = 200
_SAMPLE = 200
_MOST = 20_000


def main(module: str) -> None:
    """Serve measurements of the `System` of *module* until stdin ends."""
    # The output of a peer and its workers goes to the log; only answers go to stdout.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with importlib.import_module(module).System() as system:
        seconds_for_all(system, _WARM_UP)
        print("ready", file=answers, flush=True)
        for line in sys.stdin:
            sizes = json.loads(line)
            jobs = _jobs(system, sizes.pop("seconds"))
            print(json.dumps(measure(system, jobs, **sizes)), file=answers, flush=True)


def _jobs(system: System, seconds: float) -> int:
    """Return the number of jobs that take the system about *seconds*, so that no peer takes minutes."""
    _, taken = seconds_for_all(system, _SAMPLE)
    return max(_SAMPLE, min(_MOST, int(seconds * _SAMPLE / taken)))


if __name__ == "__main__":
    main(sys.argv[1])
