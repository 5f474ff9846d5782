"""The replicated journal on a real NATS server: leaders, standbys, mirrors, and the size of the stream."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from svc.broker.journal import Journal, Ticket
from svc.errors import ConfigurationError, Conflict, Deposed
from svc.server.journal.jetstream import frame_table, sending
from svc.server.journal.jetstream.journal import JetStreamJournal
from tests.support.jetstream_journals import led, new_stream, opened
from tests.support.journals import EVENTS, event, numbered
from tests.support.workers import until


def settled(ticket: Ticket | None) -> None:
    assert ticket is not None
    assert ticket.wait(60)


def rows(journal: Journal) -> list[int]:
    return [number for number, _ in journal.replay()]


def test_a_standby_has_the_leaders_rows_and_takes_over_with_the_next_term(tmp_path: Path):
    address = new_stream()
    leader = led(address, tmp_path / "a")
    standby = opened(address, tmp_path / "b")
    settled(leader.append(numbered(EVENTS), forget=[3]))
    until(lambda: standby.replica.lag == 0 and standby.table.rows == len(EVENTS) - 1)
    successor = standby.take_over()
    assert (leader.incarnation, successor.incarnation) == (1, 2)
    assert list(successor.replay()) == [row for row in numbered(EVENTS) if row[0] != 3]
    successor.close()
    leader.close()


def test_a_deposed_leader_acknowledges_nothing_and_says_why(tmp_path: Path):
    address = new_stream()
    leader = led(address, tmp_path / "a")
    settled(leader.append(numbered(EVENTS[:1])))
    successor = led(address, tmp_path / "b")
    ticket = leader.append([(2, EVENTS[1])])
    assert ticket is not None
    with pytest.raises(Deposed, match="another manager leads the journal in term 2"):
        ticket.wait(60)
    with pytest.raises(Deposed):
        leader.append([(3, EVENTS[2])])
    assert rows(successor) == [1]
    successor.close()
    leader.close()


def test_an_empty_commit_is_stored_and_changes_no_row(tmp_path: Path):
    address, stored = new_stream(), list[float]()
    first, standby = opened(address, tmp_path / "a"), opened(address, tmp_path / "b")
    leader = first.take_over(stored=stored.append)
    settled(leader.append(numbered(EVENTS[:1])))
    known, asked = len(stored), time.monotonic()
    first.sender.put_nothing()
    until(lambda: len(stored) > known)
    assert stored[-1] >= asked
    settled(leader.append([(2, EVENTS[1])]))
    until(lambda: standby.table.rows == 2)
    assert standby.replica.term == 1
    assert standby.replica.rebuilt == 0
    standby.close()
    leader.close()


def test_a_takeover_waits_until_the_log_is_silent(tmp_path: Path):
    address, silence = new_stream(), 0.3
    leader, standby = led(address, tmp_path / "a"), opened(address, tmp_path / "b")
    settled(leader.append(numbered(EVENTS)))
    until(lambda: standby.table.rows == len(EVENTS))
    began: list[float] = []
    known = standby.replica.grown_at
    successor = standby.take_over(silence, began.append)
    assert began[0] - known >= silence
    successor.close()
    leader.close()


def test_commits_gather_while_one_is_under_way(tmp_path: Path):
    journal = led(new_stream(), tmp_path / "a")
    assert isinstance(journal, JetStreamJournal)
    tickets = [journal.append([(number, event(number))]) for number in range(1, 501)]
    settled(tickets[-1])
    frames = journal._term.table.opened
    assert frames < 250, "each turn had a frame of its own"
    assert rows(journal) == list(range(1, 501))
    journal.close()


def test_a_row_that_is_forgotten_before_its_frame_is_sent_does_not_come_back(tmp_path: Path):
    address = new_stream()
    journal = led(address, tmp_path / "a")
    journal.append([(1, event(1))])
    last = None
    for number in range(2, 300):
        last = journal.append([(number, event(number))], forget=[number - 1])
    settled(last)
    journal.close()
    again = led(address, tmp_path / "b")
    assert rows(again) == [299]
    again.close()


def test_the_newest_row_stays_until_there_is_a_newer_one(tmp_path: Path):
    address = new_stream()
    journal = led(address, tmp_path / "a")
    settled(journal.append(numbered(EVENTS[:3])))
    journal.append([], forget=[1, 2, 3])
    journal.close()
    again = led(address, tmp_path / "b")
    assert rows(again) == [3]
    settled(again.append([(4, EVENTS[3])]))
    again.close()


def test_the_stream_stays_in_bounds_and_its_live_rows_survive_rewrites_and_purges(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(frame_table, "SPACE_BYTES", 200_000)
    monkeypatch.setattr(sending, "PURGE_BYTES", 50_000)
    address = new_stream()
    journal = led(address, tmp_path / "a")
    assert isinstance(journal, JetStreamJournal)
    kept = set(range(1, 4001, 100))
    last = None
    for number in range(1, 4001):
        gone = [number - 10] if number > 10 and number - 10 not in kept else []
        last = journal.append([(number, event(number, 1000))], forget=gone)
        journal.maintain(idle=False)
        if number % 50 == 0:
            settled(last)
    for _ in range(100):
        journal.maintain(idle=True)
        settled(journal.append([(number := number + 1, event(number, 1000))], forget=[number - 1]))
    facts = journal._term.run(journal._term._log.facts())  # type: ignore[attr-defined]
    live = rows(journal)
    assert set(live) >= kept
    assert facts.bytes < 500_000, "4 MB were written, some 60 kB are live"
    journal.close()
    again = led(address, tmp_path / "b")
    assert rows(again) == live
    again.close()


def test_a_standby_that_differs_makes_its_mirror_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sending, "DIGEST_FRAMES", 5)
    address = new_stream()
    leader = led(address, tmp_path / "a")
    standby = opened(address, tmp_path / "b")
    settled(leader.append(numbered(EVENTS)))
    until(lambda: standby.table.rows == len(EVENTS))
    standby.table.forget([(2, 2)], 1)  # a fault of the standby
    for number in range(100, 120):
        settled(leader.append([(number, event(number))]))
    assert isinstance(leader, JetStreamJournal)
    until(lambda: standby.table.digest_bytes() == leader._term.table.digest_bytes())
    assert standby.replica.rebuilt == 1
    standby.close()
    leader.close()


def test_two_terms_in_one_process_have_other_numbers_and_the_same_rows(tmp_path: Path):
    journal = led(new_stream(), tmp_path / "a")
    journal.append(numbered(EVENTS[:2]))
    journal.begin_incarnation()
    assert journal.incarnation == 2
    settled(journal.append([(3, EVENTS[2])]))
    assert rows(journal) == [1, 2, 3]
    journal.close()


def test_a_folder_with_other_files_is_refused_and_not_emptied(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match=r"has other files \(thesis.txt\)"):
        opened(new_stream(), tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "mine"


def test_two_managers_cannot_share_the_folder_of_a_mirror_and_its_end_leaves_nothing(tmp_path: Path):
    address = new_stream()
    first = opened(address, tmp_path / "mirror")
    with pytest.raises(Conflict, match="another manager has its mirror"):
        opened(address, tmp_path / "mirror")
    first.close()
    assert not (tmp_path / "mirror").exists()
