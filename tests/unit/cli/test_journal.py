"""`svc journal` on real files; the backup against a manager in its own thread is in tests/fault."""

from __future__ import annotations

from pathlib import Path

import pytest

from svc.server.journal import SCHEMA_VERSION, SqliteJournal
from tests.support.journals import event, rows_of


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    path = tmp_path / "j.db"
    opened = SqliteJournal.open(path)
    opened.append([(number, event(number)) for number in range(1, 51)])
    opened.close()
    return path


def test_info_says_what_is_in_it(svc, journal):
    ended = svc("journal", "info", "--journal", str(journal), "--json")
    assert ended.code == 0
    assert {name: ended.json[name] for name in ("version", "rows", "first", "newest", "mark_sequence")} == {
        "version": SCHEMA_VERSION, "rows": 50, "first": 1, "newest": 50, "mark_sequence": 50,
    }  # fmt: skip
    assert ended.json["events"] == {"submitted": 50}
    text = svc("journal", "info", "--journal", str(journal)).out
    assert "50 submitted" in text
    assert "row 50 of incarnation 1" in text


def test_a_whole_journal_is_verified_with_exit_code_0(svc, journal):
    ended = svc("journal", "verify", "--journal", str(journal))
    assert ended.code == 0
    assert "50 jobs to be done" in ended.out


def test_a_damaged_one_with_exit_code_1_and_what_is_wrong(svc, journal):
    content = bytearray(journal.read_bytes())
    content[content.find(b"25" * 30)] ^= 1
    journal.write_bytes(content)
    ended = svc("journal", "verify", "--journal", str(journal), "--json")
    assert ended.code == 1
    assert [check["name"] for check in ended.json["checks"] if not check["ok"]] == ["rows", "replay"]
    assert ended.json["ok"] is False


@pytest.mark.parametrize("verb", ["info", "verify"])
def test_one_that_a_manager_has_open_is_left_alone(svc, journal, verb):
    manager = SqliteJournal.open(journal)
    assert svc("journal", verb, "--journal", str(journal)).code == 6
    manager.append([(51, event(51))])
    manager.close()


@pytest.mark.parametrize("verb", ["info", "verify"])
def test_one_that_is_not_there_is_told_and_not_made(svc, tmp_path, verb):
    assert svc("journal", verb, "--journal", str(tmp_path / "none.db")).code == 1
    assert not list(tmp_path.glob("none.db*"))


def test_restore_makes_a_journal_and_replaces_none(svc, journal, tmp_path):
    expected = rows_of(journal)
    target = tmp_path / "new.db"
    assert svc("journal", "restore", str(journal), "--journal", str(target)).code == 0
    assert rows_of(target) == expected
    assert svc("journal", "restore", str(journal), "--journal", str(target)).code == 6


def test_a_backup_of_a_queue_in_memory_is_refused(svc):
    assert svc("journal", "backup", "b.db").code == 6
