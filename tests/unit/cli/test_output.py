"""Foreign text in the output of the command line, on a terminal and elsewhere."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import pytest

from svc.cli import output
from svc.errors import JobFailed, ServiceError
from tests.support.hostile_text import HOSTILE, raw_in

texts = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(params=[io.StringIO, Terminal], ids=["a file", "a terminal"])
def streams(request, monkeypatch):
    """stdout and stderr of the same kind."""
    monkeypatch.setenv("TERM", "dumb")
    out, err = request.param(), request.param()
    monkeypatch.setattr(output, "sys", SimpleNamespace(stdout=out, stderr=err))
    return out, err


@pytest.fixture
def terminal(monkeypatch):
    out = Terminal()
    monkeypatch.setattr(output, "sys", SimpleNamespace(stdout=out))
    return out


@texts
class TestWhatPeopleRead:
    """Safe wherever it goes: somebody may look at the file later."""

    def test_a_cell_of_a_table_is_no_other_row(self, streams, text):
        output.table([text], [("NAME", str), ("STATE", lambda _: "dead")], "none")
        shown = streams[0].getvalue()
        assert not raw_in(shown)
        rows = [line for line in shown.splitlines() if line.strip(" ─")]
        assert [row.split()[-1] for row in rows] == ["STATE", "dead"]

    def test_a_fact_is_one_line(self, streams, text):
        output.facts([("task", text), ("state", "dead")])
        first, second = streams[0].getvalue().splitlines()
        assert not raw_in(first)
        assert first.startswith("task ")
        assert second == "state  dead"

    def test_a_line_is_one_line(self, streams, text):
        output.write(f"  {text}")
        assert not raw_in(streams[0].getvalue())
        assert streams[0].getvalue().count("\n") == 1

    @pytest.mark.parametrize("kind", [ServiceError, JobFailed])
    def test_an_error_is_one_line(self, streams, text, kind):
        error = kind(text)
        error.add_note(text)
        output.report(error, as_json=False, line=3)
        shown = streams[1].getvalue()
        assert not raw_in(shown)
        assert shown.count("\n") == 1

    def test_an_error_in_json_is_one_line_and_exact(self, streams, text):
        output.report(ServiceError(text), as_json=True)
        shown = streams[1].getvalue()
        assert not raw_in(shown)
        assert shown.count("\n") == 1
        assert json.loads(shown)["error"]["message"] == text

    def test_a_document_is_exact(self, streams, text):
        output.write_json({text: text})
        output.write_ndjson([[text]])
        whole, _, last = streams[0].getvalue().rstrip("\n").rpartition("\n")
        assert not raw_in(whole + last)
        assert (json.loads(whole), json.loads(last)) == ({text: text}, [text])


@texts
class TestWhatProgramsRead:
    def test_it_is_exact_in_a_file(self, monkeypatch, text):
        file = io.StringIO()
        monkeypatch.setattr(output, "sys", SimpleNamespace(stdout=file))
        with output.Printer(json=False, ndjson=False) as out:
            out.item({}, text)
        output.write_exact(text)
        assert file.getvalue() == f"{text}\n{text}\n"

    def test_it_is_safe_on_a_terminal(self, terminal, text):
        output.write_exact(text)
        assert not raw_in(terminal.getvalue())

    def test_each_of_several_is_one_line_on_a_terminal(self, terminal, text):
        with output.Printer(json=False, ndjson=False) as out:
            out.item({}, text, "o-1")
            out.item({}, "2", "o-2")
        first, second = terminal.getvalue().splitlines()
        assert not raw_in(first)
        assert first.startswith("o-1\t")
        assert second == "o-2\t2"


def test_a_single_text_keeps_its_lines_on_a_terminal(terminal):
    with output.Printer(json=False, ndjson=False, single=True) as out:
        out.item({}, "one\n\ttwo\x1b[2J")
    assert terminal.getvalue() == "one\n\ttwo\\x1b[2J\n"


def test_half_a_character_ends_no_command(monkeypatch):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, "utf-8")
    monkeypatch.setattr(output, "sys", SimpleNamespace(stdout=file))
    output.write_exact("a\udcff")
    output.write_json({"a": "\udcff"})
    output.write_ndjson(["\udcff"])
    file.flush()
    first, *whole, last = raw.getvalue().decode().splitlines()
    assert first == r"a\udcff"
    assert (json.loads("".join(whole)), json.loads(last)) == ({"a": "\udcff"}, "\udcff")


def test_an_encoding_without_a_character_ends_no_command(monkeypatch):
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, "ascii")
    monkeypatch.setattr(output, "sys", SimpleNamespace(stdout=file))
    output.write_exact("naïve")
    file.flush()
    assert raw.getvalue() == b"na\\xefve\n"
