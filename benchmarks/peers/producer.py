"""A client of a peer that submits one job after the other: `python -m benchmarks.peers.producer MODULE`.

It runs beside the client that started the peer's workers. It prints a line when it is ready; after a line on
stdin it makes calls for so many seconds as that says, and prints how many it made.
"""

from __future__ import annotations

import importlib
import os
import sys
import time

from benchmarks import tasks


def main(module: str) -> None:
    """Make calls as the lines on stdin say."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    system = importlib.import_module(module).System()
    system.one(tasks.same, 0)  # connects
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        end, count = time.monotonic() + float(line), 0
        while time.monotonic() < end:
            system.one(tasks.same, count)
            count += 1
        print(count, file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
