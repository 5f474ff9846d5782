"""A manager whose journal confirms nothing for a while: its memory stays bounded, and it answers."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import pytest

from svc.broker import unsettled
from svc.domain.job import NewChunk, Terms
from svc.domain.replies import Note
from tests.support.manager import RunningManager, running_manager
from tests.support.memory_journals import HeldJournal

BODY = b"x" * 200_000
#: Bodies that may wait for the journal at once, but for the last one.
ROOM = 5
CLIENTS = 20


def confirm(manager: RunningManager, journal: HeldJournal) -> None:
    def confirmed() -> None:
        for ticket in journal.tickets:
            ticket.confirm()

    manager.server.ask(confirmed).result(30)


def test_submits_wait_unread_while_the_journal_is_behind_and_all_are_accepted_later(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(unsettled, "UNSETTLED_BYTES_MAX", ROOM * len(BODY))
    journal = HeldJournal()
    with running_manager(journal) as manager, ThreadPoolExecutor(CLIENTS) as threads:
        brokers = [manager.broker() for _ in range(CLIENTS)]
        commits = manager.host.commits.unsettled
        manager.until(lambda: bool(journal.tickets))
        confirm(manager, journal)
        other = manager.broker()
        for broker in (*brokers, other):
            broker.ping()

        def submit(number: int) -> Future[list[Note]]:
            chunk = NewChunk(0, Terms("m:f"), [BODY])
            return threads.submit(brokers[number].submit, f"o{number}", [chunk])

        def holds(count: int) -> bool:
            return commits.size == count * len(BODY)

        submits = []
        for number in range(ROOM + 1):
            submits.append(submit(number))
            manager.until(partial(holds, number + 1))
        submits += [submit(number) for number in range(ROOM + 1, CLIENTS)]
        manager.until(lambda: len(manager.server._turns.unfinished) == CLIENTS - ROOM - 1)
        assert commits.size == (ROOM + 1) * len(BODY)
        other.ping()
        assert not any(each.done() for each in submits)
        while not all(each.done() for each in submits):
            confirm(manager, journal)
        assert [each.result() for each in submits] == [[]] * CLIENTS
        for broker in (*brokers, other):
            broker.close()
