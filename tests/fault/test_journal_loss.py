"""Bits flip and files are cut: accepted rows are there, or the journal reports the loss (F7, I13)."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from svc.errors import JournalError
from svc.server.journal import SqliteJournal, mark
from svc.server.journal.inspection import verify
from tests.support.journals import event, killed, remove, rows_of

FLIPS, CUTS = 500, 200
ROWS = [(number, event(number, 300 + number % 7 * 60)) for number in range(80)]


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """Return the files of a journal after kill -9, with 40 rows in its file and 40 in its log."""
    path, image = tmp_path / "whole.db", tmp_path / "image.db"
    journal = SqliteJournal.open(path)
    for row in ROWS:
        journal.append([row])
        if row[0] == 39:
            journal.checkpoint()
    killed(path, image)
    journal.close()
    return image


def flip(path: Path, offset: int, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1 << bit
    path.write_bytes(content)


def place_of_row_25(path: Path) -> int:
    """Return the offset of a byte in the arguments of a row that is in the file only."""
    place = path.read_bytes().find(b"25" * 100)
    assert place > 0
    return place


def rows_without_protection(path: Path) -> list[tuple[int, bytes]] | None:
    """Return the rows that plain SQLite reads from the files, or None if it reports an error."""
    try:
        with closing(apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)) as connection:
            connection.pragma("locking_mode", "EXCLUSIVE")
            return list(connection.execute("SELECT seq, body FROM events ORDER BY seq"))
    except apsw.Error:
        return None


def log_of(path: Path) -> Path:
    return Path(f"{path}-wal")


class TestTheMark:
    def test_a_flipped_bit_in_the_log_loses_rows_silently_without_it_and_is_refused_with_it(
        self, whole, tmp_path
    ):
        """The first half shows the fault itself: SQLite reports nothing."""
        flip(log_of(whole), log_of(whole).stat().st_size // 2)
        bare = killed(whole, tmp_path / "bare.db")
        mark.mark_path(bare).unlink()
        assert 40 <= len(rows_of(bare)) < len(ROWS)
        with pytest.raises(JournalError, match=r"ends at row \d+ .*once reached row 79 .*--accept-loss"):
            rows_of(whole)

    def test_a_refused_journal_is_left_as_it_was(self, whole):
        flip(log_of(whole), 20_000)
        before = [path.read_bytes() for path in (whole, log_of(whole), mark.mark_path(whole))]
        with pytest.raises(JournalError):
            rows_of(whole)
        assert [p.read_bytes() for p in (whole, log_of(whole), mark.mark_path(whole))] == before

    def test_an_accepted_loss_keeps_a_copy_first_serves_the_rest_and_is_asked_for_once(self, whole):
        flip(log_of(whole), log_of(whole).stat().st_size // 2)
        files = {p.name: p.read_bytes() for p in (whole, log_of(whole), mark.mark_path(whole))}
        left = rows_of(whole, accept_loss=True)
        kept = Path(f"{whole}.before-loss-1")
        assert {p.name: p.read_bytes() for p in kept.iterdir()} == files
        assert left == ROWS[: len(left)]
        assert rows_of(whole) == left

    def test_accept_loss_changes_nothing_where_nothing_is_lost(self, whole):
        assert rows_of(whole, accept_loss=True) == ROWS
        assert not list(whole.parent.glob("*.before-loss-*"))

    def test_a_lost_log_is_refused(self, whole):
        log_of(whole).unlink()
        with pytest.raises(JournalError, match="ends at row 39"):
            rows_of(whole)

    def test_a_lost_file_is_refused(self, whole):
        whole.unlink()
        log_of(whole).unlink()
        with pytest.raises(JournalError, match=r"ends at row -1 of incarnation 0"):
            rows_of(whole)

    def test_an_older_copy_of_the_file_put_in_its_place_is_refused(self, tmp_path):
        path = tmp_path / "j.db"
        rows_of(path)
        older = path.read_bytes()
        journal = SqliteJournal.open(path)
        journal.append(ROWS)
        journal.close()
        path.write_bytes(older)
        with pytest.raises(JournalError, match="once reached row 79"):
            rows_of(path)

    def test_one_torn_slot_is_survived_and_two_are_refused(self, whole):
        flip(mark.mark_path(whole), 20)
        assert rows_of(killed(whole, whole.with_name("one.db"))) == ROWS
        flip(mark.mark_path(whole), 512 + 20)
        with pytest.raises(JournalError, match=r"mark .* is damaged"):
            rows_of(whole)

    def test_rows_that_were_forgotten_are_no_loss(self, tmp_path):
        """The newest row stays until there is a newer one, so the mark never claims a deleted row."""
        path = tmp_path / "j.db"
        journal = SqliteJournal.open(path)
        journal.append(ROWS[:5])
        journal.append([], forget=[1, 2, 3, 4])
        image = killed(path, tmp_path / "image.db")
        journal.append([ROWS[5]])
        journal.close()
        assert [number for number, _ in rows_of(image)] == [0, 4]
        assert [number for number, _ in rows_of(path)] == [0, 5]

    @pytest.mark.parametrize(("durability", "refused"), [("os", False), ("fsync", True)])
    def test_after_power_loss_only_what_was_promised_is_missed(
        self, tmp_path, monkeypatch, durability, refused
    ):
        """Durability `os` promises nothing for the last commits before the host went down."""
        path = tmp_path / "j.db"
        journal = SqliteJournal.open(path, durability)
        journal.append(ROWS)
        image = killed(path, tmp_path / "image.db")
        journal.close()
        content = log_of(image).read_bytes()
        log_of(image).write_bytes(content[:30_000])
        monkeypatch.setattr(mark, "this_boot", lambda: 1)
        if refused:
            with pytest.raises(JournalError, match="--accept-loss"):
                rows_of(image)
        else:
            assert rows_of(image) == []

    def test_it_is_synced_at_most_once_a_second(self, tmp_path, monkeypatch):
        synced: list[int] = []
        now = iter([100.0, 100.4, 100.9, 101.1, 101.2])
        journal = SqliteJournal.open(tmp_path / "j.db")
        with monkeypatch.context() as patched:
            patched.setattr("svc.server.journal.store.os.fdatasync", synced.append)
            patched.setattr("svc.server.journal.store.time.monotonic", lambda: next(now))
            for sequence in range(1, 6):
                journal._advance_mark(sequence)
        journal.close()
        assert len(synced) == 2
        claim = mark.read_claim(mark.mark_path(tmp_path / "j.db"))
        assert claim is not None
        assert claim.sequence == 5


class TestTheRows:
    def test_a_flipped_bit_in_a_row_is_an_error_and_not_another_job(self, whole, tmp_path):
        """Without the checksum plain SQLite returns the changed row."""
        place = place_of_row_25(whole)
        flip(whole, place)
        plain = rows_without_protection(killed(whole, tmp_path / "plain.db"))
        assert plain is not None
        assert any(b"3525" in body for _, body in plain)
        with pytest.raises(JournalError, match=r"row \d+ of the journal .*checksum"):
            rows_of(whole)

    def test_reading_one_row_checks_it_too(self, whole):
        place = place_of_row_25(whole)
        flip(whole, place)
        journal = SqliteJournal.open(whole)
        refused = 0
        for number, _ in ROWS:
            try:
                journal.read(number)
            except JournalError:
                refused += 1
        journal.close()
        assert refused == 1

    def test_a_row_that_is_missing_from_the_middle_is_an_error(self, whole):
        with closing(apsw.Connection(str(whole))) as connection:
            connection.execute("DELETE FROM events WHERE seq = 17")
        with pytest.raises(JournalError, match="has 79 rows and its newest one says 80"):
            rows_of(whole)

    def test_two_rows_that_changed_places_are_an_error(self, whole):
        with closing(apsw.Connection(str(whole))) as connection:
            connection.execute("UPDATE events SET seq = -1 WHERE seq = 3")
            connection.execute("UPDATE events SET seq = 3 WHERE seq = 4")
            connection.execute("UPDATE events SET seq = 4 WHERE seq = -1")
        with pytest.raises(JournalError, match=r"row 3 .*checksum"):
            rows_of(whole)


def damaged(whole: Path, target: Path, dice: random.Random, *, cut: bool) -> None:
    """Flip one bit of the file or of its log, or cut one of them short."""
    remove(target)
    killed(whole, target)
    victim = dice.choice([target, log_of(target)])
    size = victim.stat().st_size
    if cut:
        victim.write_bytes(victim.read_bytes()[: dice.randrange(size)])
    else:
        flip(victim, dice.randrange(size), dice.randrange(8))


def judged(path: Path) -> str:
    """Return the journal's reaction to the damage: `refused`, `harmless` or `silent loss`."""
    try:
        return "harmless" if rows_of(path) == ROWS else "silent loss"
    except JournalError:
        return "refused"


@pytest.mark.slow
@pytest.mark.parametrize(("count", "cut"), [(FLIPS, False), (CUTS, True)], ids=["flips", "cuts"])
def test_of_500_flipped_bits_and_200_cuts_none_loses_anything_silently(
    whole, tmp_path, count, cut, record_property
):
    """Plain SQLite, on the same damaged files, loses or changes rows in many of these cases."""
    dice = random.Random(7)
    found, plain_losses = Counter[str](), 0
    expected = rows_without_protection(killed(whole, tmp_path / "plain.db"))
    for number in range(count):
        target = tmp_path / "damaged.db"
        damaged(whole, target, dice, cut=cut)
        plain = rows_without_protection(killed(target, tmp_path / "plain.db"))
        plain_losses += plain is not None and plain != expected
        ending = judged(target)
        assert ending != "silent loss", f"case {number}"
        found[ending] += 1
    assert plain_losses > count // 20, "the damage would not have been noticed by this test"
    assert found["refused"] > count // 5, found
    record_property(
        f"F7 {'cut the file or its log short' if cut else 'flip a bit of the file or its log'}", count
    )


def test_verify_finds_what_opening_finds(whole, tmp_path):
    assert all(check.ok for check in verify(whole))
    flip(whole, place_of_row_25(whole))
    flip(log_of(whole), log_of(whole).stat().st_size // 2)
    assert {check.name for check in verify(whole) if not check.ok} == {"rows", "replay", "end"}
