"""Submits jobs at an even pace until SIGTERM, then prints the outcome of each; runs in its own container.

`python - JOBS_A_SECOND`, with this file as its input.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
import time
from typing import Any

from svc import Client


def main() -> None:
    """Print `begun` after the first result, and at the end one JSON line for each job."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    client = Client(timeout=90)
    jobs: list[tuple[float, Any]] = []
    while not ended.wait(1 / float(sys.argv[1])):
        began = time.time()
        jobs.append((began, client.submit("chores:moment", len(jobs))))
        if len(jobs) == 1:
            jobs[0][1].result(timeout=90)
            sys.stdout.write("begun\n")
            sys.stdout.flush()
    for began, job in jobs:
        number, started = job.result(timeout=90)
        told = {"id": job.id, "number": number, "submitted": began, "started": started}
        sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main()
