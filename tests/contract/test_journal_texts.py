"""Every journal keeps the long texts of errors once, as long as a row has them, and does not replay them."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from svc.broker.error_texts import COMPRESSED_BYTES, LONG_BYTES
from svc.broker.journal import MemoryJournal
from svc.domain.events import Failed
from svc.domain.field_bounds import EXCEPTION_MAX, MESSAGE_MAX, TRACEBACK_MAX
from svc.domain.job import ErrorInfo
from svc.server.journal import SqliteJournal
from svc.server.journal.jetstream.journal import JetStreamJournal
from tests.support.journals import LONG_TRACEBACK as LONG
from tests.support.journals import Kept, event, failed, traceback_with


def texts_in(kept: Kept) -> int:
    """Return how many texts there are."""
    journal = kept.journal
    if isinstance(journal, JetStreamJournal):
        journal = journal._mirror
    if isinstance(journal, MemoryJournal):
        return len(journal._texts._packed)
    assert isinstance(journal, SqliteJournal)
    return int(journal._connection.execute("SELECT count(*) FROM texts").get)


ERRORS = [
    pytest.param(ErrorInfo("E", "m", LONG), id="a traceback"),
    pytest.param(ErrorInfo("E", "", "x" * LONG_BYTES), id="without a message"),
    pytest.param(ErrorInfo("E", "m", "m" * LONG_BYTES), id="nothing but the message"),
    pytest.param(ErrorInfo("E", "no 7", traceback_with("no 7")), id="the message at its end"),
    pytest.param(ErrorInfo("E", "ü\n" * (MESSAGE_MAX // 2), traceback_with("ü\n" * 9)), id="another message"),
    pytest.param(ErrorInfo("E", "m", "", b"\x80\xff" * (EXCEPTION_MAX // 2)), id="a pickled exception"),
    pytest.param(ErrorInfo("E", "m", LONG, LONG.encode()), id="the same bytes in both"),
    pytest.param(ErrorInfo("E", "m", "x" * (LONG_BYTES - 1), b"y" * (LONG_BYTES - 1)), id="short ones"),
    pytest.param(ErrorInfo("", "", "", b""), id="nothing"),
]


@pytest.mark.parametrize("error", ERRORS)
def test_an_error_is_read_back_as_it_was(kept, error):
    kept.journal.append([(4, failed(1, error))])
    assert kept.journal.read(4) == failed(1, error)
    assert kept.reopen().read(4) == failed(1, error)


@pytest.mark.parametrize("error", ERRORS)
def test_a_replay_leaves_long_texts_alone_and_gives_all_else(kept, error):
    kept.journal.append([(4, failed(1, error))])
    [(number, event)] = kept.reopen().replay()

    assert isinstance(event, Failed)
    assert number == 4
    assert max(len(event.error.traceback), len(event.error.exception)) < LONG_BYTES
    assert (event.error.type, event.error.message) == (error.type, error.message)
    assert event.charges == (1, 0, 0, 0)


@pytest.mark.parametrize(
    "error_of",
    [
        pytest.param(lambda n: ErrorInfo("E", "m", LONG), id="equal"),
        pytest.param(lambda n: ErrorInfo("E", f"no {n}", traceback_with("another")), id="unlike"),
        pytest.param(lambda n: ErrorInfo("KeyError", f"{n:03}", traceback_with(f"{n:03}")), id="message"),
        pytest.param(lambda n: ErrorInfo("E", str(n), "", LONG.encode()), id="exception"),
    ],
)
def test_equal_texts_are_kept_once(kept, error_of: Callable[[int], ErrorInfo]):
    kept.journal.append([(n, failed(n, error_of(n))) for n in range(1, 50)])
    for n in range(50, 100):
        kept.journal.append([(n, failed(n, error_of(n)))])
    kept.reopen()

    assert texts_in(kept) == 1
    assert [kept.journal.read(n) for n in (1, 49, 50, 99)] == [
        failed(n, error_of(n)) for n in (1, 49, 50, 99)
    ]


def test_a_text_goes_with_the_last_row_that_has_it(kept):
    shared, own = ErrorInfo("E", "m", LONG), ErrorInfo("E", "m", LONG + "x", LONG.encode())
    kept.journal.append([(1, failed(1, shared)), (2, failed(2, own)), (3, failed(3, shared)), (4, event(4))])
    seen = [texts_in(kept)]
    for gone in ([2], [1, 77], [4], [3]):
        kept.journal.append([(gone[0] + 10, event(1))], forget=gone)
        kept.reopen()
        seen.append(texts_in(kept))

    assert seen == [2, 1, 1, 1, 0]


def test_a_row_that_is_appended_and_forgotten_at_once_leaves_no_text(kept):
    kept.journal.append([(1, failed(1, ErrorInfo("E", "m", LONG))), (2, event(2))], forget=[1])
    assert texts_in(kept) == 0


def test_the_newest_row_keeps_its_text_as_long_as_it_is_kept(kept):
    error = ErrorInfo("E", "m", LONG)
    kept.journal.append([(1, failed(1, error))])
    kept.journal.append([], forget=[1])
    assert texts_in(kept) == len(list(kept.journal.replay()))
    kept.journal.append([(2, event(2))])
    assert texts_in(kept) == 0


def test_texts_that_do_not_become_shorter_are_read_back(kept):
    """Random characters; and more in one commit than are compressed."""
    source = random.Random(5)
    letters = [chr(source.randrange(0x21, 0x7F)) for _ in range(TRACEBACK_MAX)]
    texts = []
    for _ in range(COMPRESSED_BYTES // TRACEBACK_MAX + 9):
        source.shuffle(letters)
        texts.append("".join(letters))
    rows = [(n, failed(n, ErrorInfo("E", "m", text))) for n, text in enumerate(texts, start=1)]
    kept.journal.append(rows)
    kept.reopen()

    assert [(n, kept.journal.read(n)) for n, _ in rows] == rows
    assert texts_in(kept) == len(rows)
