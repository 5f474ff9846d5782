"""Large rows are in files beside the journal: none is lost, outlives its row or is used unchecked."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from svc.domain.events import AnyEvent
from svc.errors import Conflict, JournalError
from svc.server.journal import SqliteJournal, large_rows
from svc.server.journal.inspection import info, restore, verify
from svc.server.journal.large_rows import LARGE_BYTES, large_rows_path
from tests.fault.test_journal_backup import copied
from tests.fault.test_journal_full_disk import fill
from tests.support.journals import event, killed, rows_of
from tests.support.small_disk import small_disk


def large(number: int) -> AnyEvent:
    return event(number, LARGE_BYTES)


def files(path: Path) -> set[str]:
    """Return the names of the large-row files of the journal at *path*."""
    directory = large_rows_path(path)
    return {file.name for file in directory.iterdir()} if directory.exists() else set()


def gone(journal: SqliteJournal) -> None:
    """Wait until all files of deleted rows are removed: those that a thread removes now, and later ones."""
    for _ in range(2):
        journal.reserve()
        journal._large_rows.wait()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "j.db"


@pytest.fixture
def journal(path):
    opened = SqliteJournal.open(path)
    yield opened
    opened.close()


def test_large_rows_have_files_and_small_ones_none_and_all_come_back_in_order(journal, path):
    rows = [(1, event(1)), (2, large(2)), (3, event(3)), (4, large(4))]
    journal.append(rows)
    assert files(path) == {"2", "4"}
    assert [journal.read(number) for number, _ in rows] == [each for _, each in rows]
    journal.close()
    assert rows_of(path) == rows
    assert all(check.ok for check in verify(path))
    assert info(path).bytes[".large"] > 2 * LARGE_BYTES


def test_no_commit_waits_until_files_of_deleted_rows_are_removed(journal, path, monkeypatch):
    """Retention forgets many rows at once, and a busy file system is slow for each file."""
    journal.append([(number, large(number)) for number in range(1, 21)])
    held, unlink = threading.Event(), Path.unlink
    monkeypatch.setattr(Path, "unlink", lambda *args, **kwds: (held.wait(60), unlink(*args, **kwds)))
    journal.append([(21, event(21))], forget=range(1, 11))
    journal.append([(22, event(22))], forget=range(11, 21))
    assert len(files(path)) == 20
    assert journal.size() < 15 * LARGE_BYTES, "what is being removed does not count any more"

    held.set()
    gone(journal)
    assert files(path) == set()
    assert journal.size() < LARGE_BYTES


def test_where_no_thread_can_be_had_the_files_wait_until_one_can(journal, path, monkeypatch):
    def refuse(_thread):
        raise RuntimeError("can't start new thread")

    journal.append([(1, large(1))])
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        journal.append([(2, event(2))], forget=[1])
    assert files(path) == {"1"}
    assert journal.size() > LARGE_BYTES

    gone(journal)
    assert files(path) == set()


def test_with_durability_os_all_is_in_one_file_since_nothing_orders_what_reaches_the_disk(path):
    journal = SqliteJournal.open(path, "os")
    journal.append([(1, large(1))])
    journal.close()
    assert files(path) == set()
    assert rows_of(path) == [(1, large(1))]


def test_the_file_goes_after_the_commit_that_deleted_its_row_and_not_before(journal, path):
    journal.append([(1, large(1)), (2, large(2))])
    journal.append([], forget=[1, 2])
    gone(journal)
    assert files(path) == {"2"}, "the newest row is kept until there is a newer one"
    journal.append([(3, event(3))])
    gone(journal)
    assert files(path) == set()
    assert journal.size() < 2 * LARGE_BYTES


def test_nobody_can_read_the_files_but_this_user(journal, path):
    journal.append([(1, large(1))])
    assert large_rows_path(path).stat().st_mode & 0o777 == 0o700
    assert (large_rows_path(path) / "1").stat().st_mode & 0o777 == 0o600


def test_what_kill_9_left_has_every_large_row(journal, path, tmp_path):
    rows = [(number, large(number)) for number in range(5)]
    for row in rows:
        journal.append([row])
    assert rows_of(killed(path, tmp_path / "image.db")) == rows


def test_a_file_whose_row_was_never_committed_is_removed_once_all_rows_are_read(journal, path):
    journal.append([(1, large(1))])
    journal.close()
    (large_rows_path(path) / "2").write_bytes(b"left by a crash")
    journal = SqliteJournal.open(path)
    assert files(path) == {"1", "2"}
    assert list(journal.replay()) == [(1, large(1))]
    journal.close()
    assert files(path) == {"1"}


def test_a_row_takes_the_place_of_a_file_that_a_crash_left_under_its_number(journal, path, tmp_path):
    journal.append([(1, large(1))])
    (large_rows_path(path) / "2").write_bytes(b"left by a crash")
    large_rows.keep_large_rows(path, tmp_path / "kept")
    journal.append([(2, large(2))])
    assert journal.read(2) == large(2)
    assert (tmp_path / "kept" / "j.db.large" / "2").read_bytes() == b"left by a crash"


@pytest.mark.parametrize("damage", ["flipped", "cut", "gone"])
def test_a_damaged_file_is_an_error_and_never_another_job(journal, path, damage):
    journal.append([(1, large(1)), (2, event(2))])
    journal.close()
    file = large_rows_path(path) / "1"
    content = bytearray(file.read_bytes())
    content[1000] ^= 1
    file.write_bytes(content if damage == "flipped" else content[:-1])
    if damage == "gone":
        file.unlink()
    with pytest.raises(JournalError, match=r"row 1 of the journal .* cannot be read"):
        rows_of(path)
    assert not all(check.ok for check in verify(path))


def test_a_copy_of_what_a_lost_tail_left_has_the_large_rows(journal, path):
    journal.append([(1, large(1))])
    journal.checkpoint()
    journal.append([(2, large(2))])
    image = killed(path, path.with_name("image.db"))
    Path(f"{image}-wal").unlink()
    served = SqliteJournal.open(image, accept_loss=True)
    assert list(served.replay()) == [(1, large(1))]
    assert served.kept_copy is not None
    served.close()
    assert files(image) == {"1"}
    assert files(served.kept_copy / image.name) == {"1", "2"}


def test_a_backup_is_one_file_and_holds_large_rows_that_were_deleted_while_it_was_made(journal, path):
    rows = [(number, large(number)) for number in range(3)]
    journal.append([*rows, (3, event(3))])
    journal.backup("b.db")
    while journal._backup._large is None:
        journal.maintain(idle=False)
    journal.append([(4, event(4))], forget=[0, 1, 2])
    assert files(path) == {"0", "1", "2"}
    backup = copied(journal, "b.db")
    journal.append([(5, event(5))])
    gone(journal)
    assert files(path) == set()
    restore(backup, path.with_name("r.db"))
    assert rows_of(path.with_name("r.db")) == [*rows, (3, event(3))]


def test_a_backup_of_a_journal_whose_large_row_is_gone_fails_and_says_so(journal, path):
    journal.append([(1, large(1)), (2, event(2))])
    (large_rows_path(path) / "1").unlink()
    journal.backup("b.db")
    while (copy := journal.backup("b.db")).state in ("copying", "checking"):
        journal.maintain(idle=False)
    assert copy.state == "failed"
    assert "large row" in copy.error
    assert not list(journal.backups.iterdir())


def test_a_journal_is_not_restored_beside_the_large_rows_of_another(journal, path, tmp_path):
    journal.append([(1, large(1))])
    backup = copied(journal, "b.db")
    large_rows_path(tmp_path / "r.db").mkdir()
    with pytest.raises(Conflict, match="exists and is not replaced"):
        restore(backup, tmp_path / "r.db")


@pytest.mark.parametrize("ballast", [0, 8 << 20])
def test_a_large_row_on_a_full_disk_takes_the_room_of_the_ballast_or_ends_the_journal(tmp_path, ballast):
    with small_disk(tmp_path / "disk", 24576) as disk:
        journal = SqliteJournal.open(disk / "j.db", ballast_bytes=ballast)
        journal.append([(1, large(1))])
        fill(disk, 64 << 10)
        if ballast:
            journal.append([(2, large(2))])
        else:
            with pytest.raises(JournalError, match="No space left"):
                journal.append([(2, large(2))])
        journal.close()
        (disk / "filler").unlink()
        assert rows_of(disk / "j.db") == [(number, large(number)) for number in range(1, 3 if ballast else 2)]
        assert files(disk / "j.db") == ({"1", "2"} if ballast else {"1"})


def test_after_a_failed_sync_of_a_large_row_nothing_is_accepted(journal, path, monkeypatch, record_property):
    journal.append([(1, large(1))])

    def fail(file: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(JournalError, match=r"cannot be written \(Input/output error\)"):
        journal.append([(2, large(2))])
    monkeypatch.undo()
    with pytest.raises(JournalError, match="cannot be written"):
        journal.append([(3, event(3))])
    journal.close()
    assert rows_of(path) == [(1, large(1))]
    record_property("F9 let the sync of a large row fail", 1)
