"""Tables on terminals of any width: ids and titles are whole, and there are fewer columns instead."""

from __future__ import annotations

import re

import pytest

from svc.cli import output
from svc.cli.tables import broken, cells, lay_out

ROWS = [
    ["ID", "TASK", "QUEUE", "NOTE"],
    ["k3v9x0m2q7w1z-0", "mytasks:resize", "default", "ValueError: there is no such picture in the folder"],
    ["k3v9x0m2q7w1z-1234", "mytasks:add", "mail", ""],
]
SPARE = ("QUEUE", "TASK")
WIDTHS = [10, 20, 30, 40, 60, 80, 100, 200]


@pytest.mark.parametrize("width", WIDTHS)
def test_every_id_and_every_title_that_is_left_is_whole(width):
    lines = lay_out(ROWS, width, spare=SPARE, note="NOTE")
    text = "\n".join(lines)
    for row in ROWS[1:]:
        assert row[0] in text
    assert set(lines[0].split()) <= set(ROWS[0])
    assert lines[0].split()[0] == "ID"


@pytest.mark.parametrize("width", [w for w in WIDTHS if w >= 44])
def test_no_line_is_longer_than_the_terminal_if_that_can_be(width):
    assert max(map(cells, lay_out(ROWS, width, spare=SPARE, note="NOTE"))) <= width


def test_columns_are_left_out_in_their_order():
    titles = [lay_out(ROWS, width, spare=SPARE, note="NOTE")[0].split() for width in (200, 70, 60, 44)]
    every = ROWS[0]
    assert titles == [every, every, ["ID", "TASK", "NOTE"], ["ID", "NOTE"]]


def test_a_file_gets_all_columns_and_whole_lines():
    assert lay_out(ROWS, spare=SPARE, note="NOTE")[1].endswith("in the folder")
    assert len(lay_out(ROWS)) == len(ROWS)


def test_a_note_goes_on_below_itself():
    first, second, *_ = lay_out(ROWS, 80, spare=SPARE, note="NOTE")[1:]
    at = first.index("ValueError")
    assert second[:at].isspace()
    assert f"{first[at:]} {second[at:]}" == ROWS[1][-1]


@pytest.mark.parametrize(
    ("text", "width"),
    [("a bb ccc dddd", 4), ("abcdefghij", 3), ("界界 界界界", 4), ("", 5), ("e\u0301" * 9, 3)],
)
def test_nothing_is_lost_where_a_note_is_broken(text, width):
    lines = list(broken(text, width))
    assert max(map(cells, lines)) <= width
    assert re.sub(r"\s", "", "".join(lines)) == re.sub(r"\s", "", text)


@pytest.mark.parametrize("text", ["界界", "ｆｕｌｌ", "e\u0301e\u0301", "plain"])
def test_columns_line_up_whatever_is_in_them(text):
    lines = lay_out([["A", "B"], [text, "x"], ["plainplain", "x"]])
    assert len({cells(line) for line in lines}) == 1


@pytest.fixture
def narrow(monkeypatch):
    """Print for a terminal of 80 columns."""
    monkeypatch.setattr(output, "width_to_fit", lambda: 80)


@pytest.mark.usefixtures("narrow")
class TestAt80Columns:
    def test_dead_jobs_show_their_last_error_and_whole_ids(self, svc, consumer):
        ids = [svc("submit", "t:f", "--queue", "default").out.strip() for _ in range(3)]
        for _ in ids:
            consumer.fail("no such mailbox")
        ended = svc("jobs", "list", "--state", "dead")
        assert all(name in ended.out for name in ids)
        # A note may go on in the next line.
        assert re.sub(r"\s", "", ended.out).count("ValueError:nosuchmailbox") == len(ids)
        assert max(map(len, ended.lines)) <= 80

    @pytest.mark.parametrize("message", ["two\nlines", "a word " * 30, "x" * 200, ""])
    def test_whatever_the_error_is(self, svc, consumer, message):
        job = svc("submit", "t:f").out.strip()
        consumer.fail(message)
        ended = svc("jobs", "list", "--state", "dead")
        assert job in ended.out
        assert "ValueError" in ended.out
        assert max(map(len, ended.lines)) <= 80

    @pytest.mark.parametrize("argv", [["queues"], ["workers"], ["status"], ["jobs", "list"]])
    def test_no_heading_is_broken(self, svc, consumer, argv):
        svc("submit", "t:f", "--queue", "a queue of a somewhat longer name")
        ended = svc(*argv)
        titles = {word for line in ended.lines for word in line.split() if word.isalpha() and word.isupper()}
        assert titles <= {
            "CODE", "ID", "TASK", "QUEUE", "STATE", "AGE", "FAILURES", "NOTE", "READY", "SCHEDULED", "LEASED",
            "DEAD", "SUCCEEDED", "CANCELLED", "OLDEST", "RUNNING", "WORKER", "HOST", "CONSUMERS", "BUSY",
            "RESTARTS", "QUEUES", "UP", "SEEN",
        }  # fmt: skip
        assert max(map(len, ended.lines)) <= 80


def test_a_job_that_waits_for_its_retry_shows_its_error_too(svc, consumer):
    svc("submit", "t:f")
    consumer.fail("no such mailbox", retry_in=3600.0)
    assert (
        "waits for its retry after a failed attempt; ValueError: no such mailbox" in svc("jobs", "list").out
    )
