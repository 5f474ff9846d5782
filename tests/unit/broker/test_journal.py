"""What only the journal in memory promises; `tests/contract/test_journals.py` has what all journals do."""

from __future__ import annotations

import pytest

from svc.broker.journal import MemoryJournal
from svc.domain.events import Resumed
from svc.errors import JournalError
from tests.support.journals import EVENTS, numbered
from tests.support.memory_journals import reopened

EVENT = Resumed(1.0)


def test_events_come_back_in_order():
    journal = MemoryJournal()
    journal.append([(2, EVENT), (5, EVENT)])
    journal.append([(1, EVENT)], forget=[2, 99])

    assert [sequence for sequence, _ in journal.replay()] == [1, 5]
    assert journal.read(5) is EVENT


def test_a_number_that_is_taken_breaks_the_journal():
    journal = MemoryJournal()
    journal.append([(1, EVENT)])

    with pytest.raises(JournalError, match="row 1 already"):
        journal.append([(1, EVENT)])
    with pytest.raises(JournalError, match="closed"):
        journal.append([(2, EVENT)])


def test_a_row_that_is_not_there_is_an_error():
    with pytest.raises(JournalError, match="no row 7"):
        MemoryJournal().read(7)


def test_a_restart_finds_the_events_and_the_next_incarnation():
    journal = MemoryJournal(3)
    journal.append([(1, EVENT)])

    again = reopened(journal)

    assert again.incarnation == 4
    assert list(again.replay()) == [(1, EVENT)]
    with pytest.raises(JournalError):
        journal.maintain(idle=True)


def test_a_journal_in_memory_has_no_size_and_no_disk():
    journal = MemoryJournal()
    journal.append(numbered(EVENTS))
    assert (journal.size(), journal.free_bytes()) == (0, None)
    assert journal.durability == "memory"


def test_a_journal_in_memory_can_be_told_its_incarnation():
    """A manager without a file must not repeat the numbers of the manager before it."""
    assert MemoryJournal(incarnation=1234).incarnation == 1234
