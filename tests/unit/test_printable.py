"""Text of strangers is shown so that a terminal neither obeys it nor hides it."""

from __future__ import annotations

import json
import sys

import pytest

from svc.printable import printable_json, printable_line, printable_text
from tests.support.hostile_text import HOSTILE, raw_in

texts = pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)


@texts
def test_a_line_has_nothing_that_a_terminal_obeys_and_stays_one(text):
    shown = printable_line(text)
    assert not raw_in(shown)
    assert shown.splitlines() == [shown]
    assert shown.encode("ascii", "backslashreplace").decode("unicode_escape") == text


@texts
def test_a_block_keeps_its_lines_and_nothing_else_that_a_terminal_obeys(text):
    shown = printable_text(f"one\n\t{text}")
    assert shown.startswith("one\n\t")
    assert not raw_in(shown)
    assert shown.count("\n") == 1 + text.count("\n")


@texts
def test_json_means_the_same(text):
    document = {text: [text, {"n": 1}]}
    shown = printable_json(json.dumps(document, ensure_ascii=False, indent=2))
    assert not raw_in(shown)
    assert json.loads(shown) == document


@pytest.mark.parametrize("text", ["", "plain", "naïve café", "日本語", "C:\\x1b", "❤😀", "a b", '"quoted"'])
def test_text_that_does_no_harm_is_unchanged(text):
    assert printable_line(text) == printable_text(text) == printable_json(text) == text


def test_half_a_character_is_shown_and_can_be_encoded():
    assert printable_line("a\udcff\ud800").encode() == rb"a\udcff\ud800"
    assert printable_json('"\udcff"').encode() == rb'"\udcff"'


def test_every_character_comes_out_safe_and_can_be_told():
    every = [chr(code) for code in range(sys.maxunicode + 1)]
    shown = [printable_line(each) for each in every]
    assert not raw_in("".join(shown))
    assert len(set(shown)) == len(every)
