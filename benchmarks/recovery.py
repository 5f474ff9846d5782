"""The time of a manager to serve again after `kill -9`, by the way in which its waiting jobs were submitted.

The journal is written without a manager, but with the same content; then managers start on it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from benchmarks.processes import resident_bytes
from benchmarks.systems import Service
from svc import Client
from svc.broker.clock import ManagerClock
from svc.broker.host import TICK_SECONDS, QueueHost
from svc.domain.events import Submitted
from svc.domain.job import Terms
from svc.domain.limits import Limits
from svc.server.journal import SqliteJournal

#: Jobs of one submit in bulk.
_CALL = 1_000
_ROWS_A_COMMIT = 5_000
_TERMS = Terms("benchmarks.tasks:same", queue="deep")
_BODY = b"\x92\x91\x01\x80"


@dataclass(frozen=True)
class Recovery:
    """The figures of one journal.

    Attributes:
        shape: how its jobs were submitted.
        seconds: seconds from the start of the process until it had answered a call.
        resident: bytes that the manager had resident then.
    """

    shape: str
    seconds: float
    resident: int


def measure(durability: str, waiting: int) -> Iterator[Recovery]:
    """Yield the figures of a journal of *waiting* jobs for each way to submit them."""
    for shape, call, merged in (
        (f"submitted {_CALL:,} at a time", _CALL, False),
        ("submitted one by one, and merged since", 1, True),
        ("submitted one by one, all in the last minute", 1, False),
    ):
        with Service(durability, "--max-queue", str(2 * waiting), consumers=0) as service:
            service.manager.kill()
            service.manager.wait()
            _write(service.folder / "journal", waiting, call)
            if merged:
                _merge(service.folder / "journal")
            service.start_manager()
            service.manager.kill()
            service.manager.wait()
            yield _recovery(service, shape)


def _recovery(service: Service, shape: str) -> Recovery:
    started = time.perf_counter()
    service.start_manager()
    with Client(service.address, authkey_file=service.keyfile) as client:
        client.stats()
    return Recovery(shape, time.perf_counter() - started, resident_bytes(service.manager.pid))


def _write(path: Path, jobs: int, call: int) -> None:
    """Write the events of *jobs* jobs that are submitted now, *call* jobs at a time."""
    journal = SqliteJournal.open(path, "os")
    rows = (
        (number, Submitted(time.time(), "benchmark", first, _TERMS, [_BODY] * call))
        for number, first in enumerate(range(0, jobs, call), start=1_000)
    )
    while commit := list(islice(rows, max(1, _ROWS_A_COMMIT // call))):
        journal.append(commit)
    journal.close()


def _merge(path: Path) -> None:
    """Merge the jobs' events as a manager does after a minute: run turns until all are merged."""
    host = QueueHost(SqliteJournal.open(path, "os"), clock=_Hurried(), limits=Limits(merge_seconds=0.0))
    while host.state.ledger.grown:
        host.turn()
    host.close()


class _Hurried(ManagerClock):
    """A clock by which the next tick is due at each reading."""

    def __init__(self) -> None:
        super().__init__()
        self._now = time.time()

    def now(self) -> float:
        """Return a Unix time in seconds."""
        self._now += TICK_SECONDS
        return self._now
