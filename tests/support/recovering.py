"""A manager that recovers from artificial faults, and calls to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from svc.broker.broken import Place
from svc.broker.journal import Journal, MemoryJournal
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.events import AnyEvent
from svc.domain.job import NewChunk, Terms
from svc.domain.observer import Observer
from svc.server.fault_reports import FaultReports
from svc.server.journal.store import rows_of
from svc.server.recovery import Recovery
from svc.wire import encode_request
from tests.support.broken_manager import CORRUPTS, GRANTS, RAISES, TICKS, WRITES
from tests.support.manager import RunningManager, running_manager
from tests.support.memory_journals import LateJournal
from tests.support.stranger import Stranger

SECRET = "s3cr3t-marker"


PLACES = {
    RAISES: Place.REQUEST,
    CORRUPTS: Place.REQUEST,
    WRITES: Place.COMMIT,
    TICKS: Place.UPKEEP,
    GRANTS: Place.REQUEST,
}


class Told(Observer):
    def __init__(self) -> None:
        self.places: list[str] = []

    def counted(self, metric: str, *labels: str, by: int = 1) -> None:
        if metric == "svc_manager_recoveries_total":
            self.places += list(labels) * by


@contextmanager
def breakable(journal: Journal, folder: Path, told: Told | None = None) -> Iterator[RunningManager]:
    """Serve *journal*; reports go to *folder*."""
    with running_manager(journal, observer=told) as manager:
        manager.server.recovery = Recovery(FaultReports(folder))
        yield manager


class EncodingJournal(MemoryJournal):
    """Takes no event that a file could not take."""

    def append(self, records: Sequence[tuple[int, AnyEvent]], forget: Sequence[int] = ()) -> None:
        rows_of(records)
        super().append(records, forget)


class LateEncodingJournal(EncodingJournal, LateJournal):
    """Does so, and confirms each commit after a moment."""


def submit(task: str, number: int = 0, body: bytes = b"x", origin: str = "o") -> c.Submit:
    return c.Submit(origin, [NewChunk(number, Terms(task), [body])])


def ask(manager: RunningManager, *commands: c.AnyCommand, timeout: float = 30.0) -> list[r.AnyReply]:
    """Call over a connection of its own."""
    broker = manager.broker(timeout=timeout)
    try:
        return broker.call(commands)
    finally:
        broker._discard()


def trip(manager: RunningManager, task: str, number: int = 0) -> list[r.AnyReply]:
    """Have a job of *task* break the state; return the replies once its sender has sent it again."""
    replies = ask(manager, submit(task, number, SECRET.encode(), "b"))
    if task == GRANTS:
        consumer = manager.consumer("w-9")
        consumer.call([c.Lease(), c.Ping()])
        consumer._discard()
    return replies


def send_once(manager: RunningManager, *commands: c.AnyCommand) -> None:
    """Send *commands*, and wait until the manager closes the connection; they are not sent again."""
    with Stranger(manager.endpoint) as sender:
        sender.serve(manager.authkey)
        sender.send(encode_request(1, commands))
        sender.rest()


def refused(replies: list[r.AnyReply]) -> r.Refused:
    """Return the one refusal in *replies*."""
    (refusal,) = (reply for reply in replies if isinstance(reply, r.Refused))
    return refusal


def ready(manager: RunningManager) -> int:
    (totals,) = ask(manager, c.Stats())
    assert isinstance(totals, r.Totals)
    return {queue.name: queue.ready for queue in totals.queues}["default"]


def unfinished(manager: RunningManager) -> int:
    """Return how many jobs wait or run; one that is taken meanwhile is counted too."""
    (totals,) = ask(manager, c.Stats())
    assert isinstance(totals, r.Totals)
    return {queue.name: queue.ready + queue.leased for queue in totals.queues}["default"]
