"""Journals are copied and moved between files and streams of a real NATS server, and stay what they are."""

from __future__ import annotations

import asyncio
import itertools
import shutil
from contextlib import closing
from pathlib import Path

import pytest

from svc.app import journal_places
from svc.domain.job import ErrorInfo
from svc.errors import (
    ConfigurationError,
    Conflict,
    CopyIncomplete,
    JournalError,
    JournalMoved,
    ServiceError,
)
from svc.journal_address import StreamAddress
from svc.server.journal import SqliteJournal, copying
from svc.server.journal.copying import INCARNATIONS_SKIPPED
from svc.server.journal.jetstream import open_stream
from svc.server.journal.jetstream.candidacy import LEADER_KEY, encode_holding
from svc.server.journal.jetstream.key_bucket import open_bucket
from svc.server.journal.jetstream.lead_timing import Timing
from svc.server.journal.jetstream.leadership import Holding
from svc.settings import NewJournalSettings
from tests.support.jetstream_journals import led
from tests.support.jetstream_journals import opened as standby_of
from tests.support.journal_copies import (
    checks,
    copied,
    described,
    new_place,
    opened,
    rows,
    write,
)
from tests.support.journals import EVENTS, event, failed, numbered, traceback_with
from tests.support.processes import Service
from tests.support.workers import until

KINDS = list(itertools.product(("file", "stream"), repeat=2))
ERROR = ErrorInfo("ValueError", "lost", traceback_with("lost"), b"\x00" * 2000)
#: Events of each kind, errors with long texts, large rows, and forgotten ones.
RECORDS = [
    *numbered(EVENTS),
    (50, failed(50, ERROR)),
    (51, failed(51, ERROR)),
    (70, event(70, 3 << 20)),
    (90, event(90)),
]
GONE = [3, 51]


@pytest.fixture(params=KINDS[1:3], ids="-to-".join)
def places(request: pytest.FixtureRequest, tmp_path: Path):
    """Return a journal and a place for its copy, of each pair of kinds."""
    source, target = request.param
    written = new_place(source, tmp_path)
    write(written, tmp_path, RECORDS, GONE)
    return written, new_place(target, tmp_path)


@pytest.mark.parametrize("places", KINDS, indirect=True, ids="-to-".join)
def test_a_copy_has_the_rows_of_its_source_and_both_go_on(places, tmp_path):
    source, target = places
    report = copied(source, target)
    wanted = {number: each for number, each in RECORDS if number not in GONE}
    assert (report.contents.rows, report.contents.newest, report.moved) == (len(wanted), 90, False)
    assert all(checks(target).values())
    assert described(target).incarnation >= INCARNATIONS_SKIPPED
    assert rows(target, tmp_path) == wanted
    assert rows(source, tmp_path) == wanted


@pytest.mark.parametrize("places", KINDS, indirect=True, ids="-to-".join)
def test_a_moved_journal_says_where_it_went_and_its_copy_goes_on(places, tmp_path):
    source, target = places
    before = described(source).incarnation
    copied(source, target, move=True)
    with pytest.raises(JournalMoved, match=rf"was moved to {target}; start the manager there"):
        opened(source, tmp_path)
    assert described(source).moved_to == str(target)
    assert all(checks(source).values()), "a moved journal can still be read"
    with closing(opened(target, tmp_path)) as journal:
        assert journal.incarnation > before, "no token of the old place is given again"
        ticket = journal.append([(91, event(91))])
        assert ticket is None or ticket.wait(60)


def test_the_same_command_again_changes_nothing_until_the_copy_was_served(places, tmp_path):
    source, target = places
    first = copied(source, target, move=True)
    again = copied(source, target, move=True)
    assert again == copying.CopyReport(first.source, first.target, first.contents, kept=90, moved=True)
    opened(target, tmp_path).close()
    with pytest.raises(Conflict, match="was used"):
        copied(source, target, move=True)


def test_a_source_that_goes_on_makes_its_copy_useless(places, tmp_path, monkeypatch):
    source, target = places
    interrupt(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        copied(source, target)
    monkeypatch.undo()
    opened(source, tmp_path).close()
    with pytest.raises(Conflict, match=r"has changed since its copy .* was begun.*delete"):
        copied(source, target)


def test_a_copy_that_is_not_complete_is_neither_served_nor_copied(places, tmp_path, monkeypatch):
    source, target = places
    interrupt(monkeypatch)
    with pytest.raises(KeyboardInterrupt):
        copied(source, target)
    monkeypatch.undo()
    with pytest.raises(CopyIncomplete, match="run the same `svc journal copy` again"):
        opened(target, tmp_path)
    with pytest.raises(CopyIncomplete):
        copied(target, new_place("file", tmp_path))
    other = new_place("file", tmp_path)
    write(other, tmp_path, RECORDS, [])
    with pytest.raises(Conflict, match=f"is a copy of {source} and not of {other}"):
        copied(other, target)
    assert copied(source, target).kept > 0
    assert rows(target, tmp_path) == rows(source, tmp_path)


def test_a_used_target_is_refused_and_stays_as_it_is(places, tmp_path):
    source, target = places
    write(target, tmp_path, [(1, event(1))], [])
    with pytest.raises(Conflict, match=r"(has|is) a journal that was used"):
        copied(source, target)
    assert rows(target, tmp_path).keys() == {1}


def test_a_copy_that_differs_is_not_served(places, tmp_path, monkeypatch):
    source, target = places
    found = copying.contents_of
    monkeypatch.setattr(
        copying, "contents_of", lambda rows, progress: found(itertools.islice(rows, 5), progress)
    )
    with pytest.raises(JournalError, match=r"differs from .*rows 5 for 18.*delete it"):
        copied(source, target)
    with pytest.raises(CopyIncomplete):
        opened(target, tmp_path)
    monkeypatch.undo()
    assert rows(source, tmp_path), "nothing has happened to the source"


def test_what_was_moved_elsewhere_is_copied_only_on_request(places, tmp_path):
    source, target = places
    copied(source, target, move=True)
    other = new_place("file", tmp_path)
    with pytest.raises(JournalMoved, match="what came there later is not in it"):
        copied(source, other)
    assert not isinstance(other, Path) or not other.exists()
    copied(source, other, accept_moved=True)
    assert rows(other, tmp_path) == rows(target, tmp_path)


def test_an_empty_journal_can_be_moved(tmp_path):
    place: Path | StreamAddress = new_place("file", tmp_path)
    opened(place, tmp_path).close()
    for kind in ("stream", "file"):
        target = new_place(kind, tmp_path)
        assert copied(place, target, move=True).contents.rows == 0
        place = target
    assert rows(place, tmp_path) == {}


# --- streams ---------------------------------------------------------------------------------------


def test_an_old_leader_is_deposed_by_the_move_and_says_where_to(tmp_path):
    source, target = new_place("stream", tmp_path), tmp_path / "copy.db"
    assert isinstance(source, StreamAddress)
    leader = led(source, tmp_path / "a")
    standby = standby_of(source, tmp_path / "b")
    ticket = leader.append(numbered(EVENTS))
    assert ticket is not None
    assert ticket.wait(60)
    copied(source, target, move=True)
    ticket = leader.append([(99, event(99))])
    assert ticket is not None
    with pytest.raises(JournalMoved, match=f"was moved to {target}, and this manager has written nothing"):
        ticket.wait(60)
    with pytest.raises(JournalMoved, match=f"was moved to {target}; start the manager there"):
        standby.take_over()
    standby.close()
    leader.close()
    assert rows(target, tmp_path).keys() == set(range(1, len(EVENTS) + 1))


def test_a_leader_that_writes_while_its_journal_is_copied_stops_the_move(tmp_path, monkeypatch):
    source, target = new_place("stream", tmp_path), tmp_path / "copy.db"
    assert isinstance(source, StreamAddress)
    leader = led(source, tmp_path / "a")
    leader.append(numbered(EVENTS))
    found = copying.contents_of

    def meanwhile(*args):
        ticket = leader.append([(99, event(99))])
        assert ticket is not None
        assert ticket.wait(60)
        return found(*args)

    monkeypatch.setattr(copying, "contents_of", meanwhile)
    with pytest.raises(Conflict, match="a manager has written the journal"):
        copied(source, target, move=True)
    assert all(checks(source).values())
    leader.append([(100, event(100))])
    leader.close()
    with pytest.raises(CopyIncomplete):
        opened(target, tmp_path)


def test_a_stream_that_a_manager_serves_is_refused_until_it_hands_over(tmp_path):
    source, target = new_place("stream", tmp_path), tmp_path / "copy.db"
    assert isinstance(source, StreamAddress)
    write(source, tmp_path, RECORDS, [])
    hold_key(source, Holding("m1", ("10.0.0.7:7077",)))
    with pytest.raises(Conflict, match=r"is served by the manager at 10\.0\.0\.7:7077; stop it"):
        copied(source, target)
    assert not target.exists()
    hold_key(source, Holding("m1", ("10.0.0.7:7077",), free=True))
    assert copied(source, target).contents.rows == len(RECORDS)


def test_the_facts_about_a_stream_tell_rows_frames_and_servers(tmp_path):
    place = new_place("stream", tmp_path)
    write(place, tmp_path, RECORDS, GONE)
    found = described(place)
    assert (found.rows, found.first, found.newest, found.incarnation) == (len(RECORDS) - len(GONE), 1, 90, 1)
    assert found.events["failed"] == 4
    assert found.frames["term"] == 1
    assert found.messages == found.last_message - found.first_message + 1
    assert found.bytes > found.live_bytes > 3 << 20
    assert (found.replicas, found.current, found.offline, found.served_by) == (1, 1, 0, "")
    assert any("one server alone" in warning for warning in found.warnings)


def test_a_damaged_frame_is_found_by_verify(tmp_path, monkeypatch):
    place = new_place("stream", tmp_path)
    write(place, tmp_path, RECORDS, GONE)
    take = open_stream.CountingReplica.take
    monkeypatch.setattr(
        open_stream.CountingReplica,
        "take",
        lambda self, message: take(
            self, message._replace(data=message.data[:-1] + b"~") if message.sequence == 4 else message
        ),
    )
    assert checks(place) == {"servers": True, "frames": False}


def test_a_backup_of_a_streams_manager_becomes_a_new_stream(tmp_path):
    source = new_place("stream", tmp_path)
    assert isinstance(source, StreamAddress)
    with closing(led(source, tmp_path / "a")) as journal:
        journal.append(RECORDS)
        journal.backup("b.db")
        until(lambda: not journal.maintain(idle=True) and journal.backup("b.db").state == "done")
        backup = Path(journal.backup("b.db").path)
    assert all(checks(backup).values())
    target = new_place("stream", tmp_path)
    settings = NewJournalSettings(journal=target, journal_replicas=1)
    journal_places.restore(settings, backup)
    with closing(led(target, tmp_path / "b")) as journal:  # type: ignore[arg-type]
        assert journal.incarnation > INCARNATIONS_SKIPPED
        assert {number: journal.read(number) for number, _ in journal.replay()} == dict(RECORDS)
    with pytest.raises(Conflict, match="was used"):
        journal_places.restore(settings, backup)


@pytest.mark.slow
def test_a_managers_queue_is_moved_into_a_file_and_goes_on_there(tmp_path):
    source, target = new_place("stream", tmp_path), tmp_path / "moved.db"
    service = Service(tmp_path, "tests.support.recorded_tasks")
    on_stream = ("--journal", str(source), "--journal-replicas", "1", "--mirror", str(tmp_path / "mirror"))
    try:
        service.start_manager(*on_stream)
        with service.client() as client:
            jobs = [client.submit("m:f", number).id for number in range(3)]
        with pytest.raises(Conflict, match=f"is served by the manager at {service.listen}"):
            copied(source, target)
        service.stop_manager()
        copied(source, target, move=True)
        service.start_manager(*on_stream, wait=False)
        assert service.manager is not None
        assert service.manager.wait(60) == JournalMoved.exit_code
        service.start_manager("--journal", str(target))
        with service.client() as client:
            assert [client.view(job).state for job in jobs] == ["ready"] * 3
    finally:
        service.close()


def test_a_row_of_16_mib_goes_into_a_stream_and_comes_back(tmp_path):
    first, stream, last = tmp_path / "a.db", new_place("stream", tmp_path), tmp_path / "b.db"
    write(first, tmp_path, [(1, event(1)), (2, event(2, 16 << 20)), (3, event(3))], [])
    for source, target in ((first, stream), (stream, last)):
        copied(source, target, move=True)
    row = rows(last, tmp_path)[2]
    assert row == event(2, 16 << 20)


# --- bad input -------------------------------------------------------------------------------------


def test_the_same_place_twice_is_refused(tmp_path):
    path, stream = new_place("file", tmp_path), new_place("stream", tmp_path)
    write(path, tmp_path, RECORDS, [])
    assert isinstance(path, Path)
    (tmp_path / "link").symlink_to(path)
    for one, other in ((path, path), (path, tmp_path / "link"), (stream, stream)):
        with pytest.raises(ConfigurationError, match="are the same journal"):
            copied(one, other)


def test_a_file_that_a_manager_serves_is_refused(tmp_path):
    path = tmp_path / "j.db"
    with closing(SqliteJournal.open(path)), pytest.raises(Conflict, match="in use by another process"):
        copied(path, tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()


def test_a_source_that_is_none_is_told_and_nothing_is_made(tmp_path):
    sources: list[Path | StreamAddress] = [
        tmp_path / "none.db",
        tmp_path / "text",
        new_place("stream", tmp_path),
    ]
    (tmp_path / "text").write_text("no journal" * 100)
    for source in sources:
        with pytest.raises(ServiceError, match=r"there is no|not a journal"):
            copied(source, tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()


def test_a_source_whose_end_is_lost_is_refused(tmp_path):
    path = new_place("file", tmp_path)
    assert isinstance(path, Path)
    write(path, tmp_path, RECORDS, [])
    kept = path.read_bytes()
    write(path, tmp_path, [(100, event(100))], [])
    path.write_bytes(kept)
    with pytest.raises(JournalError, match="accepted jobs or results are missing"):
        copied(path, tmp_path / "copy.db")


def test_a_disk_without_room_is_told_before_anything_is_written(tmp_path, monkeypatch):
    path = new_place("file", tmp_path)
    write(path, tmp_path, RECORDS, [])
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=1000))
    with pytest.raises(JournalError, match=r"takes \d+ bytes, and the disk of .* has 1000 left; make room"):
        copied(path, tmp_path / "copy.db")
    assert not (tmp_path / "copy.db").exists()


def hold_key(place: StreamAddress, holding: Holding) -> None:
    """Write the key of the leader of the journal at *place*."""

    async def write_key() -> None:
        bucket = await open_bucket(place, Timing(), replicas=1)
        await bucket.put(LEADER_KEY, encode_holding(holding))
        await bucket.close()

    asyncio.run(write_key())


def interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a copy end before it verifies what it has copied."""

    def ctrl_c(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(copying, "contents_of", ctrl_c)
