"""What each journal promises its host; `tests/support/journals.py` lists the journals."""

from __future__ import annotations

import pytest

from svc.errors import Conflict, JournalError, RowMissing
from tests.support.journals import EVENTS, numbered


def test_what_was_appended_is_read_back_by_number(kept):
    kept.journal.append(numbered(EVENTS))
    assert [kept.journal.read(number) for number, _ in numbered(EVENTS)] == EVENTS


def test_every_kind_of_event_survives_a_restart_in_order(kept):
    kept.journal.append(numbered(EVENTS[:4]))
    kept.journal.append(numbered(EVENTS[4:], first=5))
    assert list(kept.reopen().replay()) == numbered(EVENTS)


def test_replay_is_in_order_of_number_across_gaps(kept):
    kept.journal.append([(40, EVENTS[0]), (7, EVENTS[1])])
    kept.journal.append([(2**62, EVENTS[2]), (8, EVENTS[3])])
    assert [number for number, _ in kept.journal.replay()] == [7, 8, 40, 2**62]


def test_a_new_journal_replays_nothing(kept):
    assert list(kept.journal.replay()) == []


def test_forgotten_rows_are_gone_and_unknown_ones_are_passed_over(kept):
    kept.journal.append(numbered(EVENTS))
    kept.journal.append([], forget=[9, 2, 3, 4, 77, 3])
    rest = [number for number, _ in numbered(EVENTS) if number not in {2, 3, 4, 9}]
    assert [number for number, _ in kept.reopen().replay()] == rest


def test_rows_are_appended_and_forgotten_in_one_call(kept):
    kept.journal.append(numbered(EVENTS[:3]))
    kept.journal.append([(4, EVENTS[3])], forget=[1, 2, 3])
    assert list(kept.reopen().replay()) == [(4, EVENTS[3])]


def test_an_empty_append_changes_nothing(kept):
    kept.journal.append([])
    assert list(kept.reopen().replay()) == []


def test_reading_a_row_that_is_not_there_is_an_error_and_does_no_harm(kept):
    with pytest.raises(JournalError, match="no row 3"):
        kept.journal.read(3)
    kept.journal.append([(3, EVENTS[0])])
    assert kept.journal.read(3) == EVENTS[0]


def test_each_opening_is_a_new_incarnation(kept):
    seen = [kept.journal.incarnation, kept.reopen().incarnation, kept.reopen().incarnation]
    assert seen == [1, 2, 3]


def test_an_incarnation_begins_in_the_open_journal_and_keeps_every_row(kept):
    kept.journal.append(numbered(EVENTS[:4]), forget=[4])
    kept.journal.begin_incarnation()
    assert kept.journal.incarnation == 2
    replayed = [number for number, _ in kept.journal.replay()]
    assert replayed[:3] == [1, 2, 3]

    kept.journal.append([(5, EVENTS[4])], forget=[4])
    assert [number for number, _ in kept.reopen().replay()] == [1, 2, 3, 5]
    assert kept.journal.incarnation == 3


def test_a_row_that_is_not_there_is_told_apart_from_a_disk_that_fails(kept):
    with pytest.raises(RowMissing, match="no row 3"):
        kept.journal.read(3)


def test_a_number_that_is_taken_ends_the_journal_but_loses_nothing(kept):
    kept.journal.append(numbered(EVENTS[:2]))
    with pytest.raises(JournalError):
        kept.journal.append([(3, EVENTS[2]), (1, EVENTS[3])])
    with pytest.raises(JournalError):
        kept.journal.append([(4, EVENTS[3])])
    assert list(kept.reopen().replay()) == numbered(EVENTS[:2])


@pytest.mark.parametrize(
    "use",
    [
        lambda journal: journal.append([(1, EVENTS[0])]),
        lambda journal: journal.append([]),
        lambda journal: journal.read(1),
        lambda journal: list(journal.replay()),
        lambda journal: journal.maintain(idle=True),
    ],
)
def test_a_closed_journal_refuses_everything(kept, use):
    kept.journal.close()
    kept.journal.close()
    with pytest.raises(JournalError, match="closed"):
        use(kept.journal)


def test_checkpoints_change_nothing_that_can_be_read(kept):
    for number, event in numbered(EVENTS):
        kept.journal.append([(number, event)])
        kept.journal.maintain(idle=True)
    assert list(kept.journal.replay()) == numbered(EVENTS)
    assert list(kept.reopen().replay()) == numbered(EVENTS)


def test_a_backup_is_made_by_maintenance_or_refused_as_such(kept):
    kept.journal.append(numbered(EVENTS))
    try:
        begun = kept.journal.backup("copy.db")
    except Conflict:
        return  # this engine makes none
    assert begun.state == "copying"
    while kept.journal.maintain(idle=False):
        pass
    assert kept.journal.backup("copy.db").state in ("checking", "done")
    assert list(kept.journal.replay()) == numbered(EVENTS)


def test_a_time_that_was_noted_is_expected_again_or_nothing_is(kept):
    kept.journal.note_time(1_000_000.0)
    assert kept.journal.expected_time() == 0.0 or kept.journal.expected_time() >= 1_000_000.0


def test_a_journal_on_a_disk_tells_its_size_and_the_room_that_is_left(kept):
    kept.journal.append(numbered(EVENTS))
    on_disk = kept.journal.free_bytes() is not None
    assert on_disk == (kept.journal.size() > 0)
    assert not on_disk or kept.journal.free_bytes() > 0
