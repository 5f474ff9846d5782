"""Backups under load, and their content (F23)."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Self

import pytest

from svc.broker.host import QueueHost
from svc.broker.manager import ManagerBroker
from svc.domain.job import NewChunk, Terms
from svc.domain.replies import Copy
from svc.errors import BadRequest, Conflict, JournalError
from svc.server.journal import SqliteJournal
from svc.server.journal import backup as backups
from svc.server.journal.copying import INCARNATIONS_SKIPPED
from svc.server.journal.inspection import info, restore, verify
from tests.support.journals import event, rows_of
from tests.support.manager import running_manager

WAIT_SECONDS = 60


class Load:
    """A client that submits one job after the other, from a thread."""

    def __init__(self, broker: ManagerBroker) -> None:
        self.accepted = 0
        self.slowest = 0.0
        self._broker = broker
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        self._thread.join(WAIT_SECONDS)

    def _run(self) -> None:
        while not self._done.is_set():
            started = time.monotonic()
            self._broker.submit("load", [NewChunk(self.accepted, Terms("m:f"), [b"y" * 500])])
            self.slowest = max(self.slowest, time.monotonic() - started)
            self.accepted += 1


def finished(broker: ManagerBroker, name: str) -> Copy:
    """Ask until the backup is done or has failed."""
    deadline = time.monotonic() + WAIT_SECONDS
    while (copy := broker.backup(name)).state in ("copying", "checking"):
        assert time.monotonic() < deadline
    return copy


def submit_many(broker: ManagerBroker, count: int) -> None:
    for number in range(0, count, 100):
        broker.submit("before", [NewChunk(number, Terms("m:f"), [b"x" * 2000] * 100)])


def test_a_backup_under_load_holds_all_that_was_accepted_before_and_restores(tmp_path, monkeypatch):
    # So many slices that the client gets its turn among them, on a busy machine too.
    monkeypatch.setattr(backups, "SLICE_PAGES", 8)
    path, restored = tmp_path / "j.db", tmp_path / "new" / "j.db"
    with (
        running_manager(SqliteJournal.open(path)) as manager,
        manager.broker() as broker,
        manager.broker() as other,
    ):
        submit_many(broker, 10_000)
        with Load(other) as load:
            while load.accepted < 20:
                time.sleep(0.001)
            before = load.accepted
            copy = finished(broker, "monday.db")
            during = load.accepted - before
    assert (copy.state, copy.error) == ("done", "")
    assert during > 3, "there was no load"
    assert copy.pages > 10 * backups.SLICE_PAGES, "it was copied in one go"
    backup = Path(copy.path)
    assert [file.name for file in backup.parent.iterdir()] == ["monday.db"]
    restore(backup, restored)
    assert all(check.ok for check in verify(restored))
    host = QueueHost(SqliteJournal.open(restored))
    assert {f"before-{number}" for number in range(0, 10_000, 999)} <= known(host, "before", range(10_000))
    assert len(known(host, "load", range(before))) == before
    assert host.journal.incarnation == INCARNATIONS_SKIPPED + 2
    host.close()


def known(host: QueueHost, origin: str, numbers: range) -> set[str]:
    found = host.state.ledger.find
    return {f"{origin}-{number}" for number in numbers if found(f"{origin}-{number}") is not None}


def made(tmp_path: Path, rows: int = 100) -> tuple[SqliteJournal, Path]:
    """Return an open journal, and a finished backup of it."""
    journal = SqliteJournal.open(tmp_path / "j.db")
    journal.append([(number, event(number)) for number in range(rows)])
    return journal, copied(journal, "b.db")


def copied(journal: SqliteJournal, name: str) -> Path:
    journal.backup(name)
    while journal.backup(name).state in ("copying", "checking"):
        journal.maintain(idle=False)
    copy = journal.backup(name)
    assert copy.state == "done", copy.error
    return Path(copy.path)


def test_a_restored_journal_replays_what_the_backup_holds_and_says_so(tmp_path):
    journal, backup = made(tmp_path)
    journal.append([(100, event(100))])
    expected = list(journal.replay())[:100]
    journal.close()
    assert (info(backup).rows, info(backup).events, info(backup).mark_sequence) == (
        100,
        {"submitted": 100},
        -1,
    )
    restore(backup, tmp_path / "r.db")
    assert info(tmp_path / "r.db").mark_sequence == 99
    assert rows_of(tmp_path / "r.db") == expected


def test_what_is_committed_between_two_slices_is_in_the_backup(tmp_path):
    journal = SqliteJournal.open(tmp_path / "j.db")
    journal.append([(number, event(number, 2000)) for number in range(2000)])
    journal.backup("b.db")
    assert journal.maintain(idle=False), "it was copied in one go"
    journal.append([(2000, event(2000))], forget=[0, 5])
    backup = copied(journal, "b.db")
    expected = list(journal.replay())
    journal.close()
    restore(backup, tmp_path / "r.db")
    assert rows_of(tmp_path / "r.db") == expected


def test_a_journal_that_is_there_is_never_replaced(tmp_path):
    journal, backup = made(tmp_path)
    journal.close()
    with pytest.raises(Conflict, match=r"j\.db exists and is not replaced"):
        restore(backup, tmp_path / "j.db")
    (tmp_path / "j.db").unlink()
    with pytest.raises(Conflict, match=r"j\.db\.mark exists"):
        restore(backup, tmp_path / "j.db")


def test_a_damaged_backup_is_not_restored(tmp_path):
    journal, backup = made(tmp_path)
    journal.close()
    content = bytearray(backup.read_bytes())
    content[content.find(b"25" * 30)] ^= 1
    backup.write_bytes(content)
    with pytest.raises(JournalError, match=r"is not restored: .*checksum"):
        restore(backup, tmp_path / "r.db")
    assert not (tmp_path / "r.db").exists()


def test_a_damaged_journal_gives_no_backup(tmp_path):
    """The check of the copy keeps a bad page out of all later backups."""
    path = tmp_path / "j.db"
    journal = SqliteJournal.open(path)
    journal.append([(number, event(number)) for number in range(100)])
    journal.close()
    content = bytearray(path.read_bytes())
    content[content.find(b"25" * 30)] ^= 1
    path.write_bytes(content)
    journal = SqliteJournal.open(path)
    journal.backup("b.db")
    while (copy := journal.backup("b.db")).state in ("copying", "checking"):
        journal.maintain(idle=False)
    journal.close()
    assert copy.state == "failed"
    assert "checksum" in copy.error
    assert not list((tmp_path / "j.db.backups").iterdir())


@pytest.mark.parametrize("name", ["", "../x", "a/b", ".hidden", "x" * 200])
def test_a_name_that_leads_elsewhere_is_refused(tmp_path, name):
    journal = SqliteJournal.open(tmp_path / "j.db")
    with pytest.raises(BadRequest, match="cannot name a backup"):
        journal.backup(name)
    journal.close()


def test_a_backup_that_exists_is_not_replaced_and_only_one_is_made_at_a_time(tmp_path):
    journal, backup = made(tmp_path, rows=10)
    content = backup.read_bytes()
    journal.append([(number, event(number, 3000)) for number in range(10, 1500)])
    journal.backup("c.db")
    with pytest.raises(Conflict, match=r"c\.db is being made"):
        journal.backup("d.db")
    copied(journal, "c.db")
    with pytest.raises(Conflict, match="choose another name"):
        journal.backup("b.db")
    journal.close()
    assert backup.read_bytes() == content


def test_a_manager_that_stops_meanwhile_leaves_no_half_a_backup(tmp_path):
    journal = SqliteJournal.open(tmp_path / "j.db")
    journal.append([(number, event(number, 3000)) for number in range(1500)])
    journal.backup("b.db")
    journal.maintain(idle=False)
    journal.close()
    assert not list((tmp_path / "j.db.backups").iterdir())
    assert len(rows_of(tmp_path / "j.db")) == 1500


def test_a_client_is_told_of_a_journal_that_is_not_on_disk():
    with running_manager() as manager, manager.broker() as broker, pytest.raises(Conflict, match="memory"):
        broker.backup("b.db")


@pytest.mark.parametrize("other", ["n.partial", ".n.partial", "n.partial-journal", "n-wal", "n.db.new"])
def test_a_backup_touches_no_file_that_it_does_not_make(tmp_path, other):
    folder = tmp_path / "backups"
    folder.mkdir()
    (folder / other).write_text("mine")
    with (
        running_manager(SqliteJournal.open(tmp_path / "j.db", backups=folder)) as manager,
        manager.broker() as broker,
    ):
        assert finished(broker, "n").state == "done"
    assert (folder / other).read_text() == "mine"
    assert {file.name for file in folder.iterdir()} == {"n", other}


def test_backups_named_as_drafts_of_each_other_are_both_made(tmp_path):
    with running_manager(SqliteJournal.open(tmp_path / "j.db")) as manager, manager.broker() as broker:
        made = [finished(broker, name) for name in ("n.partial", "n", "n.partial.partial")]
    assert [Path(copy.path).name for copy in made if Path(copy.path).exists()] == [
        "n.partial",
        "n",
        "n.partial.partial",
    ]


@pytest.mark.parametrize("name", ["j.db.ballast", "j.db.mark", "j.db-wal", "j.db.large", "j.db"])
def test_a_backup_takes_no_name_of_a_file_of_the_journal(tmp_path, name):
    journal = SqliteJournal.open(tmp_path / "j.db", backups=tmp_path)
    with (
        running_manager(journal) as manager,
        manager.broker() as broker,
        pytest.raises((BadRequest, Conflict)),
    ):
        broker.backup(name)


@pytest.mark.parametrize("other", ["new.db.partial", ".new.db.partial", "new.db.new"])
def test_a_restore_touches_no_file_that_it_does_not_make(tmp_path, other):
    with running_manager(SqliteJournal.open(tmp_path / "j.db")) as manager, manager.broker() as broker:
        copy = finished(broker, "n")
    (tmp_path / other).write_text("mine")
    restore(Path(copy.path), tmp_path / "new.db")
    assert (tmp_path / other).read_text() == "mine"
