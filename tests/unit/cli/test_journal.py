"""`svc journal` on real files; the backup against a manager in its own thread is in tests/fault."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from svc.app import journal_places
from svc.domain.replies import Copy
from svc.errors import JournalMoved
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
    ended = svc("journal", verb, "--journal", str(tmp_path / "none.db"))
    assert (ended.code, ended.out) == (2, "")
    assert f"there is no journal {tmp_path}/none.db; name it with --journal FILE" in ended.err
    assert not list(tmp_path.glob("none.db*"))


def test_restore_makes_a_journal_and_replaces_none(svc, journal, tmp_path):
    expected = rows_of(journal)
    target = tmp_path / "new.db"
    assert svc("journal", "restore", str(journal), "--journal", str(target)).code == 0
    assert rows_of(target) == expected
    assert svc("journal", "restore", str(journal), "--journal", str(target)).code == 6


def test_a_copy_tells_what_it_has_and_both_files_stay(svc, journal, tmp_path):
    target = tmp_path / "new.db"
    ended = svc("journal", "copy", str(journal), str(target))
    assert ended.code == 0
    assert "rows    50, the newest is 50\njobs    50 ready\ndigest  " in ended.out
    assert f"{target} is a copy of {journal}; let managers run on one of them alone" in ended.err
    assert rows_of(target) == rows_of(journal)
    assert svc("journal", "copy", str(journal), str(target)).code == 6


def test_a_moved_journal_says_where_it_is_to_managers_and_to_info(svc, journal, tmp_path):
    target = tmp_path / "new.db"
    ended = svc("journal", "copy", str(journal), str(target), "--move", "--json")
    assert (ended.code, ended.json["moved"], ended.json["kept"]) == (0, True, -1)
    assert ended.json["contents"]["states"] == {"default": {"ready": 50}}
    with pytest.raises(JournalMoved, match=f"was moved to {target}"):
        SqliteJournal.open(journal)
    assert f"moved to  {target}" in svc("journal", "info", "--journal", str(journal)).out
    assert f"was moved to {target}" in svc("journal", "verify", "--journal", str(journal)).out
    assert svc("journal", "copy", str(journal), str(tmp_path / "other.db")).code == 6
    assert svc("journal", "copy", str(journal), str(tmp_path / "other.db"), "--accept-moved").code == 0
    assert svc("journal", "restore", str(journal), "--journal", str(tmp_path / "third.db")).code == 6


@pytest.mark.parametrize(
    ("source", "target", "code"),
    [
        ("j.db", "j.db", 2),
        ("none.db", "new.db", 2),
        ("j.db", "folder", 6),
        ("j.db", "notes.txt", 1),
        ("notes.txt", "new.db", 1),
        ("j.db", "nats://127.0.0.1:4222", 2),
        ("j.db", "nats://user:secret@127.0.0.1:4222/q", 2),
        ("j.db", "http://127.0.0.1:4222/q", 2),
    ],
)
def test_places_that_cannot_be_copied_are_told_in_a_line(
    svc, journal, tmp_path, monkeypatch, source, target, code
):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("notes.txt").write_text("bread and butter")
    before = journal.read_bytes()
    ended = svc("journal", "copy", source, target)
    assert (ended.code, ended.out, ended.err.count("\n")) == (code, "", 1), ended.err
    assert "unexpected" not in ended.err
    assert "secret" not in ended.err
    assert journal.read_bytes() == before
    assert not Path("new.db").exists()


def test_a_backup_of_a_queue_in_memory_is_refused(svc):
    assert svc("journal", "backup", "b.db").code == 6


def test_a_backup_prints_its_path_for_scripts_and_the_host_that_has_it_for_people(svc, queue, monkeypatch):
    made = Copy("/var/lib/svc/journal.sqlite.backups/b.db", "done", 3, 3)
    monkeypatch.setattr(queue.host.journal, "backup", lambda name: made)
    ended = svc("journal", "backup", "b.db")
    assert (ended.code, ended.lines) == (0, [made.path])
    assert f"the copy is on the manager's host, {socket.gethostname()}" in ended.err
    assert svc("journal", "backup", "b.db", "--json").json["host"] == socket.gethostname()


@pytest.mark.parametrize(
    ("argv", "work"),
    [
        (["info"], "describe"),
        (["verify"], "verify"),
        (["restore", "backup.db"], "restore"),
        (["copy", "a.sqlite", "b.sqlite"], "copy"),
    ],
)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_told_to_end_clears_up_before(svc, monkeypatch, argv, work, number):
    """What it has read of a stream is in TMPDIR, as large as the stream."""
    left = ["what was read"]

    def interrupted(*_args: object, **_options: object) -> None:
        try:
            os.kill(os.getpid(), number)
        finally:
            left.clear()

    def not_caught(*_args: object) -> None:
        pytest.fail("the signal would have ended the process")

    monkeypatch.setattr(journal_places, work, interrupted)
    before = signal.signal(number, not_caught)
    try:
        assert svc("journal", *argv).code == 130
    finally:
        signal.signal(number, before)
    assert left == []
