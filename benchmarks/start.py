"""Times from start to end of commands, and from start to readiness of a worker, beside Python's own start."""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks.systems import PROCESSES, Service, end, environment

#: Programs for comparison, by their names in the table: Python alone, and Python with the parser.
PYTHON, TYPER = "python -c pass", "python -c 'import typer'"


def commands(service: Service) -> dict[str, list[str]]:
    """Return the measured commands by their names in the table."""
    return {
        PYTHON: ["-c", "pass"],
        TYPER: ["-c", "import typer"],
        "svc --help": ["-m", "svc", "--help"],
        "svc health": ["-m", "svc", "health", "--http", service.http],
        "svc status": [
            "-m", "svc", "status", "--manager", service.address, "--authkey-file", str(service.keyfile)
        ],
    }  # fmt: skip


def command_seconds(arguments: list[str]) -> float:
    """Return the seconds from the start to the end of a Python program.

    Raises:
        CalledProcessError: it failed, so its time is not valid.
    """
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], env=environment(), stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - started


def worker_seconds(service: Service) -> float:
    """Return the seconds from the start of a worker until its four consumers have joined."""
    before = service.client.stats().consumers
    started = time.perf_counter()
    worker = service.start_worker(PROCESSES, "--queues", "idle")
    service.wait_for_consumers(before + PROCESSES)
    taken = time.perf_counter() - started
    end(worker)
    service.wait_for_consumers(before)
    return taken
