"""The manager's cost of dead jobs that failed several times each, with long tracebacks.

A consumer reports the failures as ours do. Then the manager is killed, another one starts on the journal, and
the histories of some jobs are read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from benchmarks.processes import cpu_seconds, peak_bytes
from benchmarks.systems import Service
from svc.broker.manager import ManagerBroker
from svc.domain import commands as c
from svc.domain.field_bounds import TRACEBACK_MAX
from svc.domain.job import ErrorInfo, NewChunk, Terms, job_id
from svc.server.journal.inspection import verify

#: Attempts at each job: the first and three more, the default of a task.
ATTEMPTS = 4
_TASK = "benchmarks.tasks:same"
_QUEUE = "dead"
_ORIGIN = "benchmark"
_CONSUMER = "w.1"
_CALL = 1_000
_GRANT = 256
_PATIENCE = timedelta(seconds=60)
_LOOKED_AT = 100
_FRAME = '  File "/srv/app/tasks.py", line 107, in convert\n    return self.convert_page(page, scale=2)\n'


def _equal(job: int, attempt: int) -> ErrorInfo:
    return _error("the page is empty", "")


def _own_message(job: int, attempt: int) -> ErrorInfo:
    return _error(f"no page {job} of {attempt}", "")


def _unlike(job: int, attempt: int) -> ErrorInfo:
    return _error("the page is empty", f'  File "/srv/app/pages.py", line {job}, in page_{attempt}\n')


_SHAPES: dict[str, Callable[[int, int], ErrorInfo]] = {
    "equal tracebacks": _equal,
    "a message of its own each": _own_message,
    "a traceback of its own each": _unlike,
}


@dataclass(frozen=True)
class Dead:
    """The figures of dead jobs of one shape.

    Attributes:
        shape: how their tracebacks differ.
        failures: failed attempts that the manager recorded in a second.
        total: the most bytes that the manager had resident.
        again: the most bytes that a new manager had resident.
        journal: bytes of the journal's file.
        recovery: seconds from the start of that manager until it had answered a call.
        spent: seconds of the processor that it had used by then.
        complete: the share of the jobs looked at that had all their tracebacks.
        verified: seconds that `svc journal verify` took; it found nothing wrong.
    """

    shape: str
    failures: float
    total: int
    again: int
    journal: int
    recovery: float
    spent: float
    complete: float
    verified: float


def measure(durability: str, jobs: int) -> Iterator[Dead]:
    """Yield the figures of *jobs* dead jobs of each shape."""
    for shape, error_of in _SHAPES.items():
        with Service(durability, "--max-queue", str(2 * jobs), consumers=0) as service:
            _submit(service, jobs)
            started = time.perf_counter()
            _fail(service, jobs, error_of)
            rate = ATTEMPTS * jobs / (time.perf_counter() - started)
            peak = peak_bytes(service.manager.pid)
            recovery, spent = service.replace_manager(), cpu_seconds([service.manager.pid])
            complete = _complete(service, jobs, error_of)
            again = peak_bytes(service.manager.pid)
            service.manager.kill()
            service.manager.wait()
            journal = service.folder / "journal"
            size, verified = journal.stat().st_size, _verify(journal)
            yield Dead(shape, rate, peak, again, size, recovery, spent, complete, verified)


def _error(message: str, frame: str) -> ErrorInfo:
    end = f"{frame}ValueError: {message}\n"
    frames = _FRAME * (TRACEBACK_MAX // len(_FRAME))
    return ErrorInfo("ValueError", message, frames[: TRACEBACK_MAX - len(end)] + end)


def _submit(service: Service, jobs: int) -> None:
    with _broker(service, c.Hello(1, "client")) as broker:
        for first in range(0, jobs, _CALL):
            bodies = [b"\x92\x91\x01\x80"] * min(_CALL, jobs - first)
            broker.submit(_ORIGIN, [NewChunk(first, Terms(_TASK, _QUEUE), bodies)])


def _fail(service: Service, jobs: int, error_of: Callable[[int, int], ErrorInfo]) -> None:
    """Report failures until every job is dead."""
    queues, tasks = [_QUEUE], [_TASK]
    supervisor = c.Hello(1, "worker", "w", "w", queues=queues, tasks=tasks)
    consumer = c.Hello(1, "consumer", _CONSUMER, "w", queues=queues, tasks=tasks)
    with _broker(service, supervisor) as worker, _broker(service, consumer) as broker:
        left = ATTEMPTS * jobs
        while left:
            worker.report([c.Extend(busy=1, consumers=[_CONSUMER])])
            nacks = []
            for each in broker.lease(limit=_GRANT, wait=_PATIENCE).grant.deliveries:
                attempt = each.failures + 1
                retry = None if attempt == ATTEMPTS else 0.0
                for number in range(each.first, each.first + len(each.bodies)):
                    error = error_of(number, attempt)
                    nacks.append(c.Nack(each.token, number, error, retry, seconds=0.01))
            broker.call(nacks)
            left -= len(nacks)


def _complete(service: Service, jobs: int, error_of: Callable[[int, int], ErrorInfo]) -> float:
    """Return the share of some jobs whose histories have all reported errors."""
    numbers = range(0, jobs, max(1, jobs // _LOOKED_AT))
    with _broker(service, c.Hello(1, "client")) as broker:
        views = broker.get([job_id(_ORIGIN, number) for number in numbers])
    whole = sum(
        [attempt.error for attempt in view.attempts]
        == [error_of(number, attempt) for attempt in range(1, ATTEMPTS + 1)]
        for number, view in zip(numbers, views, strict=True)
    )
    return whole / len(numbers)


def _verify(journal: Path) -> float:
    started = time.perf_counter()
    wrong = [check for check in verify(journal) if not check.ok]
    if wrong:
        raise RuntimeError(f"the journal is not whole: {wrong}")
    return time.perf_counter() - started


def _broker(service: Service, hello: c.Hello) -> ManagerBroker:
    return ManagerBroker(service.endpoint, service.authkey, hello=lambda: hello, timeout=60)
