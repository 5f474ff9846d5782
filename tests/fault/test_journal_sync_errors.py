"""The disk reports an error on a sync: no client gets the answer "durable" after it (F9, I13)."""

from __future__ import annotations

import pytest

from svc.broker.host import QueueHost
from svc.domain import commands as c
from svc.domain import replies as r
from svc.domain.job import NewChunk, Terms
from svc.domain.members import Member
from svc.errors import JournalError
from svc.server.journal import SqliteJournal
from tests.support.disk import recorded_disk
from tests.support.journals import event, rows_of
from tests.support.state_checks import about_jobs


def submit(number: int) -> list[c.Command]:
    return [c.Submit("o", [NewChunk(number, Terms("m:f"), [b"x"])])]


@pytest.mark.parametrize("acknowledged", [0, 1, 25])
def test_after_a_failed_sync_no_reply_is_delivered_and_the_answered_jobs_are_there(
    tmp_path, acknowledged, record_property
):
    """The replies before the error show that the test would see one after it."""
    delivered: list[r.Reply] = []
    with recorded_disk() as disk:
        host = QueueHost(SqliteJournal.open(tmp_path / "j.db"))
        for number in range(acknowledged):
            host.call(submit(number), Member(), delivered.extend)
            host.turn()
        assert delivered == [r.Accepted()] * acknowledged
        disk.failing = True
        host.call(submit(acknowledged), Member(), delivered.extend)
        with pytest.raises(JournalError, match="cannot be written"):
            host.turn()
        disk.failing = False
        for _ in range(3):
            host.call(submit(acknowledged + 1), Member(), delivered.extend)
            with pytest.raises(JournalError, match="cannot be written"):
                host.turn()
        host.close()
    assert delivered == [r.Accepted()] * acknowledged
    rows = about_jobs(event for _, event in rows_of(tmp_path / "j.db"))
    assert len(rows) in (acknowledged, acknowledged + 1)
    record_property("F9 let a sync fail", 1)


def test_an_error_of_the_mark_ends_the_journal_too(tmp_path, monkeypatch):
    journal = SqliteJournal.open(tmp_path / "j.db")

    def fail(sequence: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(journal, "_advance_mark", fail)
    with pytest.raises(JournalError, match=r"cannot be written \(Input/output error\)"):
        journal.append([(1, event(1))])
    with pytest.raises(JournalError, match="cannot be written"):
        journal.append([(2, event(2))])
    journal.close()
