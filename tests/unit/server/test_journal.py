"""What only the journal in a file promises; `tests/contract/test_journals.py` has what all journals do."""

import stat
from pathlib import Path

import apsw
import msgspec
import pytest

from svc.domain.events import AnyEvent, Resumed, Submitted
from svc.errors import ConfigurationError, Conflict, JournalError
from svc.server.journal import APPLICATION_ID, SCHEMA_VERSION, SqliteJournal, require_sqlite
from svc.server.journal.inspection import info, verify
from svc.server.journal.mark import mark_path, read_claim
from tests.support.journals import EVENTS, TERMS, numbered


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.mark.parametrize("durability", ["os", "fsync"])
def test_what_a_failed_turn_left_half_done_is_undone_by_the_next_incarnation(path, durability):
    journal = SqliteJournal.open(path, durability)
    journal.append(numbered(EVENTS[:2]))
    with pytest.raises(UnicodeEncodeError):
        journal.append([(3, Resumed(1.0, "\ud800"))], forget=[1])
    with pytest.raises(OverflowError):  # the database takes no such number, in the middle of a transaction
        journal.append([(3, EVENTS[2]), (2**63, EVENTS[3])], forget=[1])
    with pytest.raises(Conflict):
        SqliteJournal.open(path, durability)

    journal.begin_incarnation()
    assert list(journal.replay()) == numbered(EVENTS[:2])
    assert journal._connection.pragma("synchronous") == {"os": 1, "fsync": 2}[durability]
    journal.append([(3, EVENTS[2])])
    journal.close()
    again = SqliteJournal.open(path, durability)
    assert (again.incarnation, list(again.replay())) == (3, numbered(EVENTS[:3]))
    again.close()


def test_the_mark_names_the_incarnation_that_was_begun_in_place(path):
    """Else a journal put back from before it would pass for whole, and its tokens would be given again."""
    journal = SqliteJournal.open(path, "fsync")
    journal.append(numbered(EVENTS[:2]))
    journal.begin_incarnation()
    claim = read_claim(mark_path(path))
    assert claim is not None
    assert (claim.incarnation, claim.sequence) == (2, 2)
    journal.close()


@pytest.mark.parametrize(("durability", "synchronous"), [("fsync", 2), ("os", 1)])
def test_the_durability_asked_for_is_the_one_in_force(path, durability, synchronous):
    journal = SqliteJournal.open(path, durability)
    assert journal.durability == durability
    assert journal._connection.pragma("synchronous") == synchronous
    assert journal._connection.pragma("locking_mode") == "exclusive"
    assert journal._connection.pragma("journal_mode") == "wal"
    journal.close()


def test_an_unknown_durability_is_a_configuration_error(path):
    with pytest.raises(ConfigurationError, match="'always' is unknown"):
        SqliteJournal.open(path, "always")
    assert not path.exists()


def test_the_size_covers_the_log_and_the_log_is_reused_after_a_checkpoint(path):
    journal = SqliteJournal.open(path, "os")
    body = Submitted(1.0, "a", 0, TERMS, [b"x" * 10_000] * 10)
    for number in range(10):
        journal.append([(number, body)])
    assert journal.wal_bytes > 1_000_000
    assert journal.size() > 1_000_000
    before = journal.size()
    journal.checkpoint()
    assert journal.wal_bytes == 0
    journal.append([(10, body)])
    assert 0 < journal.wal_bytes < 300_000
    assert journal.size() < before + 2_000_000
    free = journal.free_bytes()
    assert free is not None
    assert free > 0
    journal.close()


def test_sqlite_never_checkpoints_by_itself(path):
    """Its own checkpoint would stall whichever commit passes a thousand pages."""
    journal = SqliteJournal.open(path, "os")
    at_start = path.stat().st_size
    for number in range(20):
        journal.append([(number, Submitted(1.0, "a", 0, TERMS, [b"x" * 400_000]))])
    assert path.stat().st_size == at_start
    assert journal.wal_bytes > 1500 * 4096
    journal.close()
    assert not path.with_name("journal.db-wal").exists()


def test_the_file_and_its_log_are_for_this_user_alone(path):
    journal = SqliteJournal.open(path)
    journal.append([(1, EVENTS[0])])
    log = path.with_name("journal.db-wal")
    assert [stat.S_IMODE(file.stat().st_mode) for file in (path, log)] == [0o600, 0o600]
    journal.close()


def test_a_directory_that_is_not_there_is_told_and_not_made(tmp_path):
    path = tmp_path / "a" / "b" / "journal.db"
    with pytest.raises(JournalError, match=f"there is no directory {path.parent} for the journal"):
        SqliteJournal.open(path)
    assert not list(tmp_path.iterdir())


def test_the_file_says_what_it_is(path):
    SqliteJournal.open(path).close()
    with apsw.Connection(str(path)) as connection:
        assert connection.pragma("application_id") == APPLICATION_ID
        assert connection.pragma("user_version") == SCHEMA_VERSION
        assert connection.execute("SELECT value > 1e9 FROM meta WHERE name = 'created'").get == 1
    connection.close()


def test_the_same_journal_cannot_be_opened_twice_in_one_process(path):
    journal = SqliteJournal.open(path)
    with pytest.raises(Conflict, match=r"journal\.db is in use"):
        SqliteJournal.open(path)
    journal.append([(1, EVENTS[0])])
    journal.close()


def test_a_journal_of_a_newer_release_is_refused_with_both_versions(path):
    SqliteJournal.open(path).close()
    with apsw.Connection(str(path)) as connection:
        connection.pragma("user_version", 42)
    connection.close()
    with pytest.raises(JournalError, match=rf"has format 42 and this release reads format {SCHEMA_VERSION}"):
        SqliteJournal.open(path)


VERSION_1 = """
PRAGMA application_id = 0x73766371;
PRAGMA user_version = 1;
CREATE TABLE events (seq INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT;
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO meta VALUES ('incarnation', 6), ('created', 1763800000);
"""


def journal_of_version_1(path: Path, records: list[tuple[int, AnyEvent]]) -> None:
    """Write a file as the release before the checksums did."""
    connection = apsw.Connection(str(path))
    connection.pragma("journal_mode", "WAL")
    connection.execute(VERSION_1)
    rows = [(number, msgspec.msgpack.encode(event)) for number, event in records]
    connection.executemany("INSERT INTO events VALUES (?, ?)", rows)
    connection.close()


@pytest.mark.parametrize("count", [0, 1, len(EVENTS)])
def test_a_journal_of_version_1_is_read_and_brought_up_to_date(path, count):
    records = numbered(EVENTS[:count])
    journal_of_version_1(path, records)
    assert all(check.ok for check in verify(path)), "it can be verified as it is"
    journal = SqliteJournal.open(path)
    assert journal.incarnation == 7
    assert list(journal.replay()) == records
    journal.append(numbered(EVENTS, first=100), forget=[1])
    journal.close()
    journal = SqliteJournal.open(path)
    assert list(journal.replay()) == records[1:] + numbered(EVENTS, first=100)
    journal.close()
    assert info(path).version == SCHEMA_VERSION
    assert all(check.ok for check in verify(path))


def test_to_verify_a_journal_of_version_1_does_not_change_it(path):
    journal_of_version_1(path, numbered(EVENTS))
    before = path.read_bytes()
    verify(path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_another_database_is_left_alone(path):
    with apsw.Connection(str(path)) as connection:
        connection.execute("CREATE TABLE precious (value)")
    connection.close()
    content = path.read_bytes()
    with pytest.raises(JournalError, match="not a journal of svc"):
        SqliteJournal.open(path)
    assert path.read_bytes() == content


def test_an_empty_file_becomes_a_journal(path):
    """A manager leaves such a file if it is killed between making it and writing the schema."""
    path.touch()
    journal = SqliteJournal.open(path)
    assert journal.incarnation == 1
    journal.close()


def test_a_row_of_an_unknown_kind_is_named(path):
    SqliteJournal.open(path).close()
    with apsw.Connection(str(path)) as connection:
        connection.execute("INSERT INTO events VALUES (5, x'92A66E6576657201', NULL, 1)")
    connection.close()
    journal = SqliteJournal.open(path)
    with pytest.raises(JournalError, match="row 5 of the journal"):
        journal.read(5)
    with pytest.raises(JournalError, match="row 5 of the journal"):
        list(journal.replay())
    journal.close()


@pytest.mark.parametrize("version", ["3.40.1", "3.51.2", "3.9.99", "", "4.beta"])
def test_a_sqlite_with_the_log_reset_fault_is_refused(version):
    with pytest.raises(JournalError, match=r"3\.51\.3 or newer"):
        require_sqlite(version)


@pytest.mark.parametrize("version", ["3.51.3", "3.54.1", "3.100", "4.0.0"])
def test_a_sqlite_without_the_fault_is_accepted(version):
    require_sqlite(version)
