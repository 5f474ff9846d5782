"""Checkpoints between consumers and the queue in memory, through a real reporter."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, cast

import msgspec
import pytest

from svc.broker.local import LocalBroker, LocalQueue
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.job import NewChunk, Terms
from svc.domain.limits import TOKENS_PER_INCARNATION
from svc.errors import LeaseLost
from svc.worker import reporter as reporter_module
from svc.worker.consumer_process import ConsumerProcess
from svc.worker.job_reports import JobReports
from svc.worker.orders import KEEP, KEPT
from svc.worker.reporter import Reporter

SECONDS = 20.0
NOBODYS_TOKEN = 12345


class Line(LocalBroker):
    """The supervisor's connection; a test may act while a checkpoint is on its way."""

    on_its_way: Callable[[list[c.Checkpoint]], None]

    def call(self, commands: Sequence[c.AnyCommand], *, wait: float = 0.0) -> list[r.AnyReply]:
        sent = [each for each in commands if isinstance(each, c.Checkpoint)]
        if sent:
            self.on_its_way(sent)
        return super().call(commands, wait=wait)


class Child:
    """The consumer's end of the pipe: the answers that came, as (number, recorded, error code)."""

    name = "w-1"

    def __init__(self) -> None:
        self.answers: list[tuple[int, bool, str]] = []

    def order(self, what: bytes) -> None:
        number, recorded, code, _ = msgspec.msgpack.decode(what.removeprefix(KEPT))
        self.answers.append((number, recorded, code))


class Desk:
    """The supervisor's end, with a reporter that has yet to start: until then the manager is away."""

    def __init__(self) -> None:
        self.queue = LocalQueue()
        self.child = Child()
        self.on_its_way: Callable[[list[c.Checkpoint]], None] = lambda sent: None
        self.woken = threading.Event()
        self.reporter = Reporter(
            self.connect, lambda: c.Hello(1, "worker", "w", "w"), c.Extend, print, print, print, lambda: True
        )
        self.reports = JobReports(self.reporter, self.woken.set)

    def connect(self, hello: Callable[[], c.Hello]) -> Line:
        line = Line(self.queue, hello)
        line.on_its_way = self.on_its_way
        return line

    def lease(self) -> int:
        """Return the token of a job that runs."""
        consumer = LocalBroker(self.queue, lambda: c.Hello(1, "consumer", "w-1", "w", tasks=["m:f"]))
        LocalBroker(self.queue).submit("o", [NewChunk(0, Terms("m:f"), [b"\x01"])])
        (delivery,) = consumer.lease(limit=1, wait=timedelta()).grant.deliveries
        return delivery.token

    def keep(self, number: int, token: int, job: int = 0, *, data: bytes = b"data", awaited: bool) -> None:
        """Take a checkpoint of a consumer, which has *number* for it."""
        message = msgspec.msgpack.encode((number, token, job, awaited, data))
        assert self.reports.take(cast(ConsumerProcess, self.child), KEEP, message)

    def until(self, condition: Callable[[], Any]) -> None:
        """Be the supervisor's loop."""
        while not condition():
            assert self.woken.wait(SECONDS)
            self.woken.clear()
            self.reports.answer()

    def ended(self, number: int) -> list[tuple[bool, str]]:
        """Return how the wait for the record of *number* ended, each time that it was told."""
        return [
            (recorded, code)
            for told, recorded, code in self.child.answers
            if told == number and (recorded or code)
        ]


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_who_waits_for_a_checkpoint_is_answered_after_an_outage_with_any_number_of_others(desk: Desk) -> None:
    token = desk.lease()
    for number in range(10_000):
        desk.keep(number, NOBODYS_TOKEN, number % 100, awaited=False)
    desk.keep(10_000, token, awaited=True)

    desk.reporter.start()
    desk.until(lambda: desk.ended(10_000))

    assert desk.ended(10_000) == [(True, "")]
    desk.reporter.close(SECONDS)


def test_an_outage_leaves_one_to_tell_for_each_job_however_many_checkpoints_it_left(desk: Desk) -> None:
    for number in range(100):
        desk.keep(number, NOBODYS_TOKEN, awaited=False)
    desk.reporter.start()
    desk.until(lambda: desk.ended(99))

    assert [number for number in range(100) if desk.ended(number)] == [99]
    desk.reporter.close(SECONDS)


def test_the_record_of_an_earlier_checkpoint_does_not_answer_for_a_later_one(desk: Desk) -> None:
    token = desk.lease()
    sent: list[bytes] = []
    answered_by: list[list[tuple[bool, str]]] = []

    def leave_another(checkpoints: list[c.Checkpoint]) -> None:
        desk.reports.answer()
        answered_by.append(desk.ended(2))
        sent.extend(each.data for each in checkpoints)
        if len(sent) == 1:
            desk.keep(2, token, data=b"later", awaited=True)

    desk.on_its_way = leave_another
    desk.keep(1, token, data=b"earlier", awaited=True)
    desk.reporter.start()
    desk.until(lambda: desk.ended(2))

    assert sent == [b"earlier", b"later"]
    assert answered_by == [[], []]
    assert (desk.ended(1), desk.ended(2)) == ([(True, "")], [(True, "")])
    desk.reporter.close(SECONDS)


def test_who_waits_is_answered_although_a_checkpoint_follows_that_nobody_waits_for(desk: Desk) -> None:
    token = desk.lease()
    desk.keep(1, token, awaited=True)
    desk.keep(2, token, awaited=False)
    desk.reporter.start()
    desk.until(lambda: desk.ended(1) and desk.ended(2))
    desk.reporter.close(SECONDS)


def test_who_waits_is_answered_once_although_checkpoints_keep_coming(desk: Desk) -> None:
    token = desk.lease()
    count = iter(range(2, 8))

    def leave_more(_: list[c.Checkpoint]) -> None:
        for number in (next(count, 0), next(count, 0)):
            if number:
                desk.keep(number, token, awaited=False)

    desk.on_its_way = leave_more
    desk.keep(1, token, awaited=True)
    desk.reporter.start()
    desk.until(lambda: desk.ended(7))

    assert desk.ended(1) == [(True, "")]
    desk.reporter.close(SECONDS)


def test_who_waits_is_answered_if_a_checkpoint_is_sent_in_vain_and_a_newer_one_follows(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A manager that has restarted refuses what it has no lease for yet, and is sent it again.
    monkeypatch.setattr(reporter_module, "_REJOIN_SECONDS", SECONDS)
    of_another = (LocalBroker(desk.queue).welcome.incarnation + 1) * TOKENS_PER_INCARNATION
    first = iter([True])

    def leave_another(_: list[c.Checkpoint]) -> None:
        if next(first, False):
            desk.keep(2, of_another, awaited=False)
        else:
            monkeypatch.setattr(reporter_module, "_REJOIN_SECONDS", 0.0)

    desk.on_its_way = leave_another
    desk.keep(1, of_another, awaited=True)
    desk.reporter.start()
    desk.until(lambda: desk.ended(1))

    assert desk.ended(1) == [(False, LeaseLost.code)]
    desk.reporter.close(SECONDS)
