"""The files of svc that one warm job enters, from its submit to its result.

`python -m tests.support.job_trace` prints a JSON list with an object for each traced job: the entered files,
each with its entered functions. A real manager with an SQLite journal and metrics, a real consumer and a real
client run as threads of this process, so that one profile function sees all calls. The supervisor and the
output of the log are not part of it. A job is warm if jobs of its task ran before.
"""

from __future__ import annotations

import functools
import inspect
import json
import multiprocessing
import os
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import structlog

from svc import Client
from svc.server.journal.presence import WHOLE_SECONDS_SETTLED
from svc.server.journal.store import SqliteJournal
from svc.telemetry.metrics import ManagerMetrics
from svc.worker.consumer import Consumer
from svc.worker.options import WorkerOptions
from svc.worker.registry import Registry, Task
from svc.worker.slot import Slot
from tests.support.manager import running_manager
from tests.support.workers import connect

#: Seconds of jobs before the traced ones: a commit looks at all files of a journal that was just made.
WARM_SECONDS = WHOLE_SECONDS_SETTLED + 0.5
TRACED_JOBS = 9
#: Seconds without a call in svc after which a job is over; a consumer that waits makes none.
QUIET_SECONDS = 0.05
_ROOT = Path(inspect.getfile(Client)).parents[1]


class Trace:
    """The functions of svc that all threads enter while it is on."""

    def __init__(self) -> None:
        self._on = False
        self._entered: dict[str, set[str]] = {}
        self._calls = 0

    def start_threads(self) -> None:
        """Watch this thread, and all that are started from now on."""
        threading.setprofile(self._note)
        sys.setprofile(self._note)

    def _note(self, frame: FrameType, event: str, argument: Any) -> None:
        if self._on and event == "call":
            code = frame.f_code
            if code.co_filename.startswith(f"{_ROOT}{os.sep}"):
                self._calls += 1
                self._entered.setdefault(code.co_filename, set()).add(code.co_qualname)

    def of_job(self, client: Client) -> dict[str, list[str]]:
        """Run one job until all parts are quiet again; return the entered functions of each entered file."""
        self._entered = {}
        self._on = True
        client.submit("traced", 1).result()
        self._wait_until_quiet()
        self._on = False
        return {
            Path(file).relative_to(_ROOT).as_posix(): sorted(names)
            for file, names in sorted(self._entered.items())
        }

    def _wait_until_quiet(self) -> None:
        calls = -1
        while calls != self._calls:
            calls = self._calls
            time.sleep(QUIET_SECONDS)


def traced_jobs(folder: Path) -> list[dict[str, list[str]]]:
    """Return the traces of `TRACED_JOBS` warm jobs, one after the other."""
    trace = Trace()
    trace.start_threads()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    with running_manager(SqliteJournal.open(folder / "journal.db"), observer=ManagerMetrics()) as manager:
        options = WorkerOptions("w", "here", 1)
        slot = Slot(multiprocessing.get_context("spawn"))
        supervisor_end, orders = multiprocessing.Pipe()
        dial = functools.partial(connect, manager.endpoint, manager.authkey)
        consumer = Consumer(options, "w-1", Registry([Task("traced", abs)]), slot, orders, dial)
        threading.Thread(target=consumer.run, daemon=True).start()
        key = folder / "authkey"
        key.touch(0o600)
        key.write_bytes(manager.authkey + b"\n")
        client = Client("{}:{}".format(*manager.endpoint), authkey_file=key)
        end = time.monotonic() + WARM_SECONDS
        while time.monotonic() < end:
            client.submit("traced", 1).result()
        found = [trace.of_job(client) for _ in range(TRACED_JOBS)]
        sys.stdout.write(json.dumps(found))
        sys.stdout.flush()
        supervisor_end.fileno()  # it was open: without it the consumer would have killed this process
        os._exit(0)  # an orderly end of the consumer would take seconds


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        traced_jobs(Path(folder))
