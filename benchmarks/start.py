"""How soon commands answer and a worker works, beside what Python itself and the parser take to start."""

from __future__ import annotations

import subprocess
import sys
import time

from benchmarks.systems import PROCESSES, Service, end, environment

#: What each command is measured beside, and the name of that system in the table.
PYTHON, TYPER = "python -c pass", "python -c 'import typer'"


def commands(service: Service) -> dict[str, list[str]]:
    """Return the commands that are measured, by the name that they have in the table."""
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
        CalledProcessError: it failed, so its time means nothing.
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
