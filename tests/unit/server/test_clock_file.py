"""The last time of the manager's clock, noted beside the journal."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from svc.server.journal import SqliteJournal, clock_file
from svc.server.journal.clock_file import ClockFile

NOTED = 1_000_000.0


@pytest.fixture
def piece(tmp_path: Path) -> ClockFile:
    return ClockFile(tmp_path / "j.db")


def test_nothing_is_known_before_the_first_note(piece: ClockFile):
    assert piece.expected() == 0.0


@pytest.mark.parametrize("off", [1.0, 3 * 24 * 3600.0])
def test_as_long_as_the_host_is_up_it_tells_what_the_time_is_now(piece: ClockFile, monkeypatch, off: float):
    """So a manager that was stopped over the weekend, or had nothing to do, is not taken for a jump."""
    piece.note(NOTED)
    up = time.clock_gettime(time.CLOCK_BOOTTIME)
    monkeypatch.setattr(time, "clock_gettime", lambda which: up + off)
    assert piece.expected() == pytest.approx(NOTED + off, abs=1.0)


def test_after_a_restart_of_the_host_it_tells_the_last_time(piece: ClockFile, monkeypatch):
    piece.note(NOTED)
    monkeypatch.setattr(clock_file, "this_boot", lambda: 7)
    assert piece.expected() == NOTED


@pytest.mark.parametrize("content", [b"", b"svcclock", b"x" * 36, bytes(36), b"\xff" * 400])
def test_a_file_that_is_none_of_its_own_tells_nothing(piece: ClockFile, tmp_path: Path, content: bytes):
    (tmp_path / "j.db.clock").write_bytes(content)
    assert piece.expected() == 0.0


def test_a_note_that_was_cut_or_changed_tells_nothing(piece: ClockFile, tmp_path: Path):
    piece.note(NOTED)
    file = tmp_path / "j.db.clock"
    whole = file.read_bytes()
    for changed in (whole[:-1], whole[:9] + b"\x7f" + whole[10:], whole + b"x"):
        file.write_bytes(changed)
        assert piece.expected() == 0.0


def test_a_note_that_cannot_be_written_is_left_out(tmp_path: Path):
    (tmp_path / "j.db.clock").mkdir()
    piece = ClockFile(tmp_path / "j.db")
    piece.note(NOTED)
    assert piece.expected() == 0.0


def test_a_journal_has_one(tmp_path: Path):
    journal = SqliteJournal.open(tmp_path / "j.db")
    journal.note_time(NOTED)
    journal.close()
    journal = SqliteJournal.open(tmp_path / "j.db")
    assert journal.expected_time() == pytest.approx(NOTED, abs=5.0)
    journal.close()
